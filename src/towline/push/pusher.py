"""`Pusher`: the story of a push. Read this first.

Describe what the source holds, learn what is known of it, plan each blob's way, settle and send
them, put the manifests, tell the result. Each step is a module of this package; what pushes of
one `Pusher` share is `resources.Resources`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack, cast

from towline import reference as references
from towline.context import Cancel, Context, Meter
from towline.errors import Cancelled, TowlineError, UsageError
from towline.events import Warned, nowhere
from towline.push import copying, destinations, joint_push, options, settled, signatures
from towline.push.edge import Edge, Listener
from towline.push.image import Gatherer, images
from towline.push.manifests import build
from towline.push.resources import Resources
from towline.push.result import InspectResult, PlanResult, PushResult
from towline.push.signatures import PusherOptions, PushOptions, Several, Source
from towline.push.source_images import Engine, Opened, known_first, registry_reference, trees
from towline.push.target import Target
from towline.push.target_push import TargetPush
from towline.reference import RepositoryName
from towline.wire.log import silent
from towline.wire.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from towline.errors import Side, SourceError
    from towline.push.assembling import Assembled
    from towline.push.destinations import Told
    from towline.push.image import Tree
    from towline.push.options import Wish
    from towline.push.result import TagOutcome, TagPlan
    from towline.push.source_images import Wanted
    from towline.reference import Reference
    from towline.sources.remote import RemoteSource
    from towline.spec.digest import Digest
    from towline.targets.place import Place

    Targets = Mapping[RepositoryName, Target]


class Pusher:
    """Pushes images; connections, tokens and knowledge stay warm from one push to the next.

    May be used from many threads, not across a fork. Close it, or use it in a `with` block.
    Raises UsageError for options that cannot be.

    Its keywords are those of `PusherOptions`; `towline.push` tells what each is.
    """

    def __init__(self, **settings: Unpack[PusherOptions]) -> None:
        options.known(settings, PusherOptions)
        self._edge = Edge(Secrets())
        self._said: list[str] = []
        self._emit = Listener("on_event", settings.get("on_event") or nowhere, self._edge.event)
        self._log = Listener("log", settings.get("log") or silent, self._edge.secrets.redact)
        if settings.get("log"):
            settings["log"] = self._log
        self._account = options.given_to_one_host(settings)
        self._reads_as: Side = "source" if settings.get("src_creds") else "destination"
        with self._edge.crossed():
            self._resources = Resources(settings, self._warn, self._edge.secrets)
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and stores, and end the threads; running pushes must be over."""
        self._closed = True
        self._resources.close()

    def _check_open(self) -> None:
        """Raises UsageError: what is asked of a closed Pusher would never start."""
        if self._closed:
            raise UsageError("this Pusher is closed", hint="make another")

    @signatures.method
    def push(
        self,
        source: Source,
        destination: str | Several,
        *,
        all_tags: bool = False,
        **wishes: Unpack[PushOptions],
    ) -> PushResult | list[PushResult]:
        """Push an image to a destination, `REGISTRY/REPOSITORY[:TAG]`, or to several.

        One destination as a text gives a result; several, or `all_tags`, a list of them:
        destinations as given, tags sorted. Each layer is read and compressed once. A tag is
        written only after every blob under it is confirmed.

        Raises UsageError, SourceError, AuthError, RegistryError, NetworkError, TransferCancelled;
        PartialFailure when several were asked for and some failed.

        Further keywords are those of `PushOptions`; `towline.push` tells what each is.
        """
        return self._bring(source, destination, wishes, all_tags=all_tags)

    def _bring(
        self,
        source: Source,
        destination: str | Several,
        wishes: PushOptions,
        *,
        all_tags: bool,
        places: bool = False,
    ) -> PushResult | list[PushResult]:
        wish = options.wish(wishes, all_tags=all_tags)
        if "check_push" in wishes:
            raise UsageError("check_push goes with `plan`: a push finds out by itself")
        parsed, wish = self._parsed(source, destination, wish, all_tags=all_tags, places=places)
        said, first = len(self._said), known_first(parsed, wish)
        with (
            self._carried(wishes) as context,
            self._edge.crossed(parsed),
            self._opened(
                source, context, wish, parsed, all_tags=all_tags, known_first=first
            ) as opened,
        ):
            passed = self._pass_by(opened, parsed, wish, context)
            with context.span("described"):
                wanted = opened.wanted(parsed, wish, all_tags=all_tags)
            outcomes = self._push(opened, wanted, opened.taught(wish), context, passed)
        outcomes = [self._heard(outcome, said) for outcome in outcomes]
        several = all_tags or not isinstance(destination, str)
        return destinations.answer(wanted, outcomes, several=several)

    @signatures.method
    def copy(
        self,
        source: Source,
        destination: str | Several,
        *,
        all_tags: bool = False,
        **wishes: Unpack[PushOptions],
    ) -> PushResult | list[PushResult]:
        """Copy an image to a destination, or to several; a text as source names a registry's.

        A destination may also be `oci:DIR[:REF]`, a layout that keeps what else is in it,
        `oci-archive:FILE[:REF]` or `docker-archive:FILE[:REF]`, which are written whole.

        As `push` in all else. Whole indexes go byte for byte. Where a tag holds the source's
        digest already, one HEAD at each end is all that is asked.
        """
        meant = copying.meant(source)
        return self._bring(meant, destination, wishes, all_tags=all_tags, places=True)

    def _parsed(
        self,
        source: Source,
        destination: str | Several,
        wish: Wish,
        *,
        all_tags: bool,
        places: bool,
    ) -> tuple[list[Reference], Wish]:
        """Destinations and wish. Raises UsageError where they do not go with the source."""
        parsed = destinations.parse(
            destination, all_tags=all_tags, by_digest=wish.by_digest, places=places
        )
        destinations.on_one_host(parsed, self._account)
        return copying.checked(source, parsed, wish, all_tags=all_tags)

    def tag(
        self, reference: str, tags: str | Several, *, cancel: Cancel | None = None
    ) -> list[PushResult]:
        """Set further tags to what stands under a reference; no blob moves.

        A result for each tag, in the order given. Raises UsageError, AuthError, RegistryError,
        NetworkError, TransferCancelled; PartialFailure when some of several failed.
        """
        from towline.push import tagging

        found = references.parse(reference)
        places = tagging.places(found, [tags] if isinstance(tags, str) else tags)
        with self._edge.crossed(places):
            target = self._target(found.repository, Context(cancel, self._emit))
            outcomes = tagging.tag(target, found, places)
        outcomes = [self._edge.outcome(outcome) for outcome in outcomes]
        told = destinations.answer(places, outcomes, several=len(places) > 1)
        return told if isinstance(told, list) else [told]

    def index(
        self,
        sources: Source | Sequence[Source],
        destination: str | Several,
        **wishes: Unpack[PushOptions],
    ) -> PushResult | list[PushResult]:
        """Build one index of several sources, as `copy` reads them, and push it.

        An index gives its children; images go byte for byte, and their configs say what they run
        on. One destination as a text gives a result, several a list.

        Raises what `push` raises; SourceError also where two images are of one platform.
        """
        from towline.push.assembling import Assembled

        wish = options.wish(wishes)
        parsed = destinations.parse(destination, by_digest=wish.by_digest)
        destinations.on_one_host(parsed, self._account)
        given = [*sources] if isinstance(sources, list | tuple) else [cast("Source", sources)]
        if not given:
            raise UsageError("no source is given", hint="name the images that the index is to list")
        meant = [copying.meant(source) for source in given]
        said = len(self._said)
        with self._carried(wishes) as context, self._edge.crossed(parsed), ExitStack() as stack:
            opened = Assembled(
                [
                    stack.enter_context(self._opened(source, context, wish, parsed))
                    for source in meant
                ]
            )
            wanted = opened.wanted(parsed, wish)
            outcomes = self._push(opened, wanted, opened.taught(wish), context, {})
        outcomes = [self._heard(outcome, said) for outcome in outcomes]
        return destinations.answer(wanted, outcomes, several=not isinstance(destination, str))

    def inspect(self, source: Source, *, cancel: Cancel | None = None) -> InspectResult:
        """What an image or index is: config, layers, children, as they lie where they are.

        A text that is no existing path is a registry reference. Of a source that holds several
        images their names are told.

        Raises UsageError, SourceError, AuthError, RegistryError, NetworkError, TransferCancelled.
        """
        from towline.push import inspect

        context = Context(cancel, self._emit)
        with self._edge.crossed():
            if reference := registry_reference(source):
                return inspect.remote(reference, self._read(reference.repository, context))
            wish = options.wish({})
            with self._opened(source, context, wish) as opened:
                return inspect.local(opened, wish)

    def digest(self, source: Source, **wishes: Unpack[PushOptions]) -> str:
        """The digest under a registry reference, or that a push of a local image would have.

        That push is one with these options to an empty registry: no knowledge is used.

        Raises UsageError, SourceError, AuthError, RegistryError, NetworkError, TransferCancelled.
        """
        from towline.push import inspect

        wish = options.wish(wishes)
        with self._carried(wishes) as context, self._edge.crossed():
            if reference := registry_reference(source):
                return inspect.head(reference, self._read(reference.repository, context)).digest
            with self._opened(source, context, wish) as opened:
                return inspect.local_digest(self._resources, opened.entry(wish), wish, context)

    def tags(self, repository: str, *, cancel: Cancel | None = None) -> list[str]:
        """The tags of a repository, in lexical order.

        Raises UsageError, AuthError, RegistryError, NetworkError, TransferCancelled.
        """
        name = destinations.repository(repository)
        with self._edge.crossed():
            target = self._read(name, Context(cancel, self._emit))
            return sorted(target.retry("the tags", partial(target.registry.tags, target.context)))

    def check_login(self, registry: str, *, cancel: Cancel | None = None) -> bool:
        """Ask a registry, `HOST[:PORT]`, whether the credentials that would be used are good.

        False when it asked for none: it lets in everybody, so that nothing was checked.

        Raises AuthError when they are not; UsageError, RegistryError, NetworkError,
        TransferCancelled.
        """
        host = destinations.registry(registry)
        with self._edge.crossed():
            target = self._read(RepositoryName(host, ""), Context(cancel, self._emit))
            target.retry("the login", partial(self._resources.client.log_in, host, target.context))
        return target.context.meter.requests > 1

    @signatures.method
    def plan(
        self,
        source: Source,
        destination: str | Several,
        *,
        all_tags: bool = False,
        **wishes: Unpack[PushOptions],
    ) -> PlanResult | list[PlanResult]:
        """What a push would do; the registry is only read (GET and HEAD).

        Takes what `push` takes, and raises what it raises. With `check_push` an upload session is
        opened at each repository, and given back, to see whether a push would be let in.
        """
        from towline.push import dry_run

        wish = options.wish(wishes, all_tags=all_tags)
        wish = wish._replace(verify=None)  # there is nothing to verify yet
        parsed, wish = self._parsed(source, destination, wish, all_tags=all_tags, places=True)
        said = len(self._said)
        with (
            self._carried(wishes) as context,
            self._edge.crossed(parsed),
            self._opened(source, context, wish, parsed, all_tags=all_tags, outline=True) as opened,
        ):
            wanted = opened.wanted(parsed, wish, all_tags=all_tags)
            wish = opened.taught(wish)
            early, runs, broken = self._begun(opened, wanted, wish, context, {})
            opened.charge([run.target for run in runs])
            joint_push.prepare(self._resources, runs, wish)
            planned: dict[Reference, TagPlan] = dict(broken)
            planned |= {tag: dry_run.unchanged(outcome) for tag, outcome in early.items()}
            for run in runs:
                planned |= dry_run.estimate(run, wish, check=wishes.get("check_push", False))
            planned = {tag: opened.told_of_export(plan) for tag, plan in planned.items()}
            if opened.origin:
                copying.name_sides(planned.values())
        outcomes = [self._heard(planned[reference], said) for reference in wanted]
        several = all_tags or not isinstance(destination, str)
        return destinations.answer(wanted, outcomes, several=several)

    def _pass_by(
        self, opened: Opened, parsed: Sequence[Reference], wish: Wish, context: Context
    ) -> Targets:
        """Of a source that passes by, or is described late: the targets, which have its blobs."""
        source, outline = opened.passing, opened.outline
        if source is None and outline is None:
            return {}
        from towline.push import passing

        targets = {}
        for name, tags in destinations.by_repository(parsed).items():
            targets[name] = self._target(name, context)
            targets[name].tags = tuple((tag, passing.NOTHING) for tag in tags if tag.tag)
        if source:
            passing.pass_by(self._resources, source, list(targets.values()), wish)
        elif outline:
            wish = opened.taught(wish)
            passing.send_layers(self._resources, outline, list(targets.values()), wish)
        return targets

    def _push(
        self,
        opened: Opened | Assembled,
        wanted: Wanted,
        wish: Wish,
        context: Context,
        passed: Targets,
    ) -> list[TagOutcome]:
        early, runs, broken = self._begun(opened, wanted, wish, context, passed)
        targets = [run.target for run in runs]
        opened.charge(targets)
        left = 0
        if targets and not wish.referrers and opened.knows_referrers:
            from towline.push import referring  # which most have no need of

            left = referring.left_behind(targets, opened)
        try:
            joint_push.push(self._resources, runs, wish)
        except Cancelled:
            destinations.check_untouched(wanted, runs, early)
            raise
        finally:
            for run in runs:
                if run.target.layout:
                    run.target.layout.close()
        outcomes: dict[Reference, TagOutcome] = early | destinations.outcomes(runs) | broken
        if left and any(getattr(each, "status", "") == "pushed" for each in outcomes.values()):
            referring.tell(targets[0], left)
        if opened.origin:
            copying.name_sides(outcomes.values())
        context.trace.came_to(outcomes.values())
        return [outcomes[reference] for reference in wanted]

    def _heard(self, outcome: Told | TowlineError, said: int) -> Told | TowlineError:
        """An outcome that tells of what went wrong beside its target too.

        That is what was warned of since `said` warnings, and listeners that have failed.
        """
        if not isinstance(outcome, TowlineError):
            warnings = (*outcome.warnings, *self._said[said:], *self._faults)
            outcome = replace(outcome, warnings=warnings)
        return self._edge.outcome(outcome)

    def _begun(
        self,
        opened: Opened | Assembled,
        wanted: Wanted,
        wish: Wish,
        context: Context,
        passed: Targets,
    ) -> tuple[dict[Reference, TagOutcome], list[TargetPush], dict[Reference, SourceError]]:
        """What is settled before the source is read, and the runs of the rest, as `_runs` has it.

        What the source's registry is asked counts for the first of the targets.
        """
        places = destinations.by_repository(wanted)
        targets = {name: passed.get(name) or self._target(name, context) for name in places}
        first = next(iter(targets.values()))
        if opened.origin:
            first.context = opened.context
            first.costs = opened.costs
        if wish.omit_from:
            self._omit([*targets.values()], wish, context)
        if opened.origin is None:
            return {}, *self._runs(opened, wanted, wish, context, targets)
        found: dict[Reference, TagOutcome] = {}
        for name, tags in places.items():
            found |= settled.settled(targets[name], tags, wanted, wish)
        left = {tag: entry for tag, entry in wanted.items() if tag not in found}
        opened.read_ahead(left.values())
        return found, *self._runs(opened, left, wish, context, targets)

    def _runs(
        self,
        opened: Opened | Assembled,
        wanted: Wanted,
        wish: Wish,
        context: Context,
        begun: Targets,
    ) -> tuple[list[TargetPush], dict[Reference, SourceError]]:
        """A run for each repository, over trees that share their blobs; and what has no tree.

        `begun` are targets that there are already.
        """
        gatherer = Gatherer(wish.profile, recompress=wish.explicit_profile)
        found, broken = trees(wanted, gatherer)
        for tree in found.values():
            _check(tree, wish)
        targets = []
        for name, tags in destinations.by_repository(found).items():
            target = begun.get(name) or self._target(name, context)
            target.tags = copying.fitting(name, ((each, found[each]) for each in tags))
            targets.append(target)
            for entry in dict.fromkeys(wanted[reference] for reference, _ in target.tags):
                for warning in entry.warnings:
                    target.warn(warning)
        hosts = {target.repository.name.host for target in targets}
        for lesson in wish.cache_from:
            if targets and lesson.repository.host not in hosts:
                targets[0].warn(f"nothing is learned from {lesson}: no destination is there")
        for target in targets:
            target.alone = len(hosts) == 1
        if wish.referrers:
            from towline.push import referring  # which most have no need of

            referring.attach(targets, opened, gatherer)
        agreed: dict[Tree, tuple[str, Digest]] = {}
        return [TargetPush(target, wish, agreed) for target in targets], broken

    @contextmanager
    def _carried(self, wishes: PushOptions) -> Iterator[Context]:
        """What the calls of one push carry; the trace is written at its end, however it ends."""
        carried = Context(wishes.get("cancel"), self._emit)
        if "trace" not in wishes:
            yield carried
            return
        from towline.tracing import file  # which most have no need of

        with file.tracing(wishes["trace"], self._edge.secrets.redact, self._warn) as trace:
            emit = trace.hearing(self._emit)
            yield Context(carried.cancel, emit, trace=trace)

    def _omit(self, targets: Sequence[Target], wish: Wish, context: Context) -> None:
        """Have archives go without the layers that are where they will be pushed to."""
        omitted: set[Digest] = set()
        plain = options.wish({})
        for source in wish.omit_from:
            reference = registry_reference(source)
            spelled = f"docker://{reference}" if reference else source
            with self._opened(spelled, context, plain) as opened:
                omitted |= opened.layers()
                targets[0].context.meter.add(requests=opened.context.meter.requests)
        for target in targets:
            if target.layout:
                target.layout.omitted = omitted

    def _target(self, name: RepositoryName, context: Context) -> Target:
        return self._at(name, "destination", context)

    def _read(self, name: RepositoryName, context: Context) -> Target:
        """A repository that is only read from."""
        return self._at(name, self._reads_as, context)

    def _at(self, name: RepositoryName, side: Side, context: Context) -> Target:
        self._check_open()
        context = context.but(meter=Meter())
        if not destinations.is_at_registry(name):
            from towline.targets.archives import opened  # which most have no need of

            return Target(self._resources, opened(cast("Place", name)), (), context)
        repository = self._resources.client.repository(name, side, context=context)
        return Target(self._resources, repository, (), context)

    @contextmanager
    def _opened(
        self,
        source: Source,
        context: Context,
        wish: Wish,
        parsed: Sequence[Reference] = (),
        *,
        all_tags: bool = False,
        outline: bool = False,
        known_first: str | None = "",
    ) -> Iterator[Opened]:
        """`outline`: a rough description will do, where the source would take long to give more.

        `known_first`: as `open_source` has it.
        """
        self._check_open()
        context = context.but(meter=Meter())

        def at_registry(reference: Reference) -> RemoteSource:
            from towline.sources import remote  # which most have no need of

            resources, host = self._resources, reference.repository.host
            repository = resources.client.repository(
                reference.repository, "source", context=context
            )
            threads = resources.host_threads(host)
            policy, gate = resources.policy, resources.gate
            reading = remote.Reading(repository, context, policy, gate, threads)
            return remote.RemoteSource(
                reading, reference, all_tags=all_tags, globs=wish.tags, wanted=wish.platforms
            )

        engine = Engine(
            self._resources.engine,
            self._resources.limits.timeout,
            self._log,
            self._edge.secrets,
            self._resources.knowledge,
            partial(self._target, context=context),
            tuple(destinations.by_repository(parsed)),
            all_tags=all_tags,
            outline=outline,
        )
        environ = self._resources.environ
        with context.span("opened"):
            opened = Opened(source, context, environ, engine, at_registry, known_first=known_first)
        try:
            with copying.sides_named() if opened.origin else nullcontext():
                yield opened
        finally:
            opened.close()

    @property
    def _faults(self) -> tuple[str, ...]:
        """Warnings of the caller's own functions that have failed at listening."""
        return tuple(heard.fault for heard in (self._emit, self._log) if heard.fault)

    def _warn(self, message: str) -> None:
        self._said.append(message)
        self._emit(Warned(reference="", message=message))


def _check(tree: Tree, wish: Wish) -> None:
    """Raises UsageError for what cannot be made of a tree."""
    for image in images(tree):
        build.check(image, build.preferred(image, wish.format, wish.profile), wish.profile)
    if wish.preserve_digests:
        build.check_preserved(tree, wish.format)
