"""`Pusher`: the story of a push. Read this first.

Describe what the source holds, learn what is known of it, plan each blob's way, settle and send
them, put the manifests, tell the result. Each step is a module of this package; what pushes of
one `Pusher` share is `resources.Resources`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Self, Unpack, overload

import towline
from towline.context import Cancel, Context
from towline.errors import Cancelled, Side, TowlineError, UsageError
from towline.push import reporting
from towline.push.begin import begin, left_behind, tell_left_behind
from towline.push.interface import destinations, edge, options
from towline.push.interface.edge import Edge, Listener, Told
from towline.push.interface.option_types import check_types
from towline.push.interface.options import PusherOptions, PushOptions, Several, Source
from towline.push.pipeline import JointPush
from towline.push.resources import Resources
from towline.push.source_images import Opened, Wanted, assembled, name_sides, opening
from towline.push.target import Costs, Target, TargetPush, repository_at
from towline.push_events import nowhere
from towline.reference import Reference, RepositoryName
from towline.results import PushResult, TagOutcome
from towline.sources import location
from towline.wire.secrets import Secrets

if TYPE_CHECKING:
    from towline.sources.location import Location


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
        self._log = Listener("log", settings.get("log") or nowhere, self._edge.secrets.redact)
        if settings.get("log"):
            settings["log"] = self._log
        self._account = options.given_to_one_host(settings)
        self._reads_as: Side = "source" if settings.get("src_creds") else "destination"
        with self._edge.crossed():
            self._resources = Resources(settings, self._warn, self._edge.secrets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and stores, and end the threads; running pushes must be over."""
        self._resources.close()
        for sentence in self._resources.left():
            from towline.events import Note  # which most pushes have no need of

            self._emit(Note(reference="", message=sentence))

    @edge.method
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
        return self._bring(location.parse(source), destination, wishes, all_tags=all_tags)

    def _bring(
        self,
        source: Location,
        destination: str | Several,
        wishes: PushOptions,
        *,
        all_tags: bool,
        places: bool = False,
    ) -> PushResult | list[PushResult]:
        if "check_push" in wishes:
            raise UsageError("check_push goes with `plan`: a push finds out by itself")
        wish = options.wish(wishes, all_tags=all_tags)
        parsed = destinations.parse(destination, wish, self._account, places=places)
        parsed, wish = destinations.checked(source, parsed, wish)
        names, said = destinations.by_repository(parsed), len(self._said)
        with (
            self._carried(wishes, [source], parsed) as context,
            self._resources.connecting(names, context) as wait_for_connection,
            opening(source, self._resources, context, parsed, wish=wish, ahead=True) as opened,
        ):
            ahead: Mapping[RepositoryName, TargetPush] = {}
            if opened.source.passes() or opened.source.early_outline:
                from towline.push.passing import send_ahead  # which most have no need of

                ahead = send_ahead(opened, names, context)
            with context.span("described"):
                wanted = opened.wanted(parsed)
            wait_for_connection()
            outcomes = self._push(opened, wanted, context, ahead)
        several = all_tags or not isinstance(destination, str)
        return self._answer(outcomes, said, several=several)

    def _push(
        self,
        opened: Opened,
        wanted: Wanted,
        context: Context,
        ahead: Mapping[RepositoryName, TargetPush],
    ) -> Mapping[Reference, TagOutcome]:
        """What came of each tag that is wanted, in that order. Raises Cancelled."""
        begun = begin(opened, wanted, context, ahead=ahead)
        targets = begun.unsettled
        left = left_behind(targets, opened)
        try:
            if targets:
                JointPush(targets).push()
        except Cancelled:
            reporting.check_untouched(wanted, targets, begun.ended)
            raise
        finally:
            for target in targets:
                if target.layout:
                    target.layout.close()
        ended = begun.ended
        outcomes = {tag: ended[tag] for tag in wanted}
        if left and any(getattr(each, "status", "") == "pushed" for each in outcomes.values()):
            tell_left_behind(targets[0], left)
        if opened.source.origin:
            name_sides(outcomes.values())
        context.trace.came_to(outcomes.values())
        return outcomes

    def _answer(
        self, outcomes: Mapping[Reference, Told | TowlineError], said: int, *, several: bool
    ) -> Told | list[Told]:
        """What the caller gets, who is told of what went wrong beside the targets too.

        That is what was warned of since `said` warnings, and listeners that have failed.
        """
        faults = (heard.fault for heard in (self._emit, self._log) if heard.fault)
        warnings = (*self._said[said:], *faults)
        told = (
            replace(each, warnings=(*each.warnings, *warnings))
            if warnings and not isinstance(each, TowlineError)
            else each
            for each in outcomes.values()
        )
        return edge.answer(outcomes, [*map(self._edge.outcome, told)], several=several)

    @edge.method
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
        meant = destinations.meant(source)
        return self._bring(meant, destination, wishes, all_tags=all_tags, places=True)

    @overload
    def tag(self, reference: str, tags: str, *, cancel: Cancel | None = None) -> PushResult: ...
    @overload
    def tag(
        self, reference: str, tags: Several, *, cancel: Cancel | None = None
    ) -> list[PushResult]: ...
    def tag(
        self, reference: str, tags: str | Several, *, cancel: Cancel | None = None
    ) -> PushResult | list[PushResult]:
        """Set further tags to what stands under a reference; no blob moves.

        One tag as a text gives a result, several a list in the order given. Raises UsageError,
        AuthError, RegistryError, NetworkError, TransferCancelled; PartialFailure when several were
        asked for and some failed.
        """
        from towline.push import tag_push  # which most have no need of

        found = destinations.at_registry(reference)
        places = destinations.beside(found, tags)
        with self._edge.crossed(places):
            costs = Costs(self._context(cancel))
            target = TargetPush(self._resources, found.repository, costs, options.wish({}), {})
            outcomes = tag_push.tag(target, found, places)
        outcomes = [self._edge.outcome(outcome) for outcome in outcomes]
        return edge.answer(places, outcomes, several=not isinstance(tags, str))

    @edge.index_method
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
        wish = options.wish(wishes)
        parsed = destinations.parse(destination, wish, self._account)
        meant = destinations.all_meant(sources)
        said = len(self._said)
        with self._carried(wishes, meant, parsed) as context, ExitStack() as stack:
            each = [
                stack.enter_context(opening(source, self._resources, context, parsed, wish=wish))
                for source in meant
            ]
            opened, index = assembled(each)
            outcomes = self._push(opened, dict.fromkeys(parsed, index), context, {})
        return self._answer(outcomes, said, several=not isinstance(destination, str))

    def inspect(self, source: Source, *, cancel: Cancel | None = None) -> towline.InspectResult:
        """What an image or index is: config, layers, children, as they lie where they are.

        A text that is no existing path is a registry reference. Of a source that holds several
        images their names are told.

        Raises UsageError, SourceError, AuthError, RegistryError, NetworkError, TransferCancelled.
        """
        from towline.push import read_only

        context = self._context(cancel)
        with self._edge.crossed():
            where = destinations.looked_at(source)
            if reference := where.reference:
                return read_only.inspect_remote(
                    reference, self._read(reference.repository, context)
                )
            wish = options.wish({})
            with opening(where, self._resources, context, wish=wish) as opened:
                return read_only.inspect_local(opened, wish)

    def digest(self, source: Source, **wishes: Unpack[PushOptions]) -> str:
        """The digest under a registry reference, or that a push of an image would have.

        That push is one with these options to an empty registry: no knowledge is used.

        Raises UsageError, SourceError, AuthError, RegistryError, NetworkError, TransferCancelled.
        """
        from towline.push import read_only

        wish = options.wish(wishes)
        where = destinations.looked_at(source)
        with self._carried(wishes, [where]) as context:
            if wish.as_it_is and (reference := where.reference):
                return self._read(reference.repository, context).existing(reference).digest
            with opening(where, self._resources, context, wish=wish) as opened:
                return read_only.local_digest(self._resources, opened.entry(), wish, context)

    def tags(self, repository: str, *, cancel: Cancel | None = None) -> list[str]:
        """The tags of a repository, in lexical order.

        Raises UsageError, AuthError, RegistryError, NetworkError, TransferCancelled.
        """
        name = destinations.repository(repository)
        with self._edge.crossed():
            target = self._read(name, self._context(cancel))
            return sorted(target.retry("the tags", target.registry.tags, target.context))

    def check_login(self, registry: str, *, cancel: Cancel | None = None) -> bool:
        """Ask a registry, `HOST[:PORT]`, whether the credentials that would be used are good.

        False when it asked for none: it lets in everybody, so that nothing was checked.

        Raises AuthError when they are not; UsageError, RegistryError, NetworkError,
        TransferCancelled.
        """
        host = destinations.registry(registry)
        with self._edge.crossed():
            target = self._read(RepositoryName(host, ""), self._context(cancel))
            log_in = self._resources.client.log_in
            return target.retry("the login", log_in, host, target.context)

    @edge.method
    def plan(
        self,
        source: Source,
        destination: str | Several,
        *,
        all_tags: bool = False,
        **wishes: Unpack[PushOptions],
    ) -> towline.PlanResult | list[towline.PlanResult]:
        """What a push would do; the registry is only read (GET and HEAD).

        Takes what `push` takes, and raises what it raises. With `check_push` an upload session is
        opened at each repository, and given back, to see whether a push would be let in.
        """
        from towline.push import read_only

        wish = options.wish(wishes, all_tags=all_tags)
        wish = wish._replace(verify=None)  # there is nothing to verify yet
        parsed = destinations.parse(destination, wish, self._account, places=True)
        where = location.parse(source)
        parsed, wish = destinations.checked(where, parsed, wish)
        said = len(self._said)
        with (
            self._carried(wishes, [where], parsed) as context,
            opening(where, self._resources, context, parsed, wish=wish, outline=True) as opened,
        ):
            wanted = opened.wanted(parsed)
            begun = begin(opened, wanted, context, ahead={})
            if begun.unsettled:
                JointPush(begun.unsettled).prepare()
            planned = read_only.estimate(begun, check=wishes.get("check_push", False))
            planned = {tag: read_only.prepared(planned[tag], opened.source) for tag in wanted}
            if opened.source.origin:
                name_sides(planned.values())
        several = all_tags or not isinstance(destination, str)
        return self._answer(planned, said, several=several)

    def _context(self, cancel: Cancel | None) -> Context:
        """What the calls of one push carry, without a trace. Raises UsageError."""
        check_types({"cancel": cancel})
        return Context(cancel, self._emit)

    @contextmanager
    def _carried(
        self, wishes: PushOptions, sources: Sequence[Location], parsed: Sequence[Reference] = ()
    ) -> Iterator[Context]:
        """What the calls of one push carry; the trace is written at its end, however it ends.

        Raises UsageError where the trace would replace a source or a destination.
        """
        context = self._context(wishes.get("cancel"))
        with ExitStack() as stack:
            if (file := wishes.get("trace")) is not None:
                from towline.tracing import tracing  # which most have no need of

                destinations.check_trace(file, sources, parsed)
                trace = stack.enter_context(tracing(file, self._edge.secrets.redact, self._warn))
                context = Context(context.cancel, trace.hearing(self._emit), trace=trace)
            stack.enter_context(self._edge.crossed(parsed))
            yield context

    def _read(self, name: RepositoryName, context: Context) -> Target:
        """A repository that is only read from."""
        repository = repository_at(self._resources, name, context, self._reads_as)
        return Target(self._resources, repository, context)

    def _warn(self, message: str) -> None:
        from towline.events import Warned  # which most pushes have no need of

        self._said.append(message)
        self._emit(Warned(reference="", message=message))
