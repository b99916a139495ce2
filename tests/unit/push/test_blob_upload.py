"""One blob at one target, step by step, at a registry that says what a test wants said."""

from __future__ import annotations

import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from tests.support.layers import BytesReader
from tests.support.processes import until
from tests.support.pushing import NAME, Client
from tests.support.scripted import CUT, Reply, Scripted, scripted
from towline.context import Cancel, Context
from towline.errors import AuthError, Cancelled, NetworkError, RegistryError, SourceError
from towline.events import Retrying
from towline.knowledge.store import Knowledge
from towline.layers import profile as profiles
from towline.layers.blobstream import BlobStream
from towline.push.image import Blob
from towline.push.plan import Ask, Delivered, Made, Mount, Send
from towline.push.unfinished import Unfinished
from towline.push.upload.blob_upload import BlobUpload
from towline.push_events import LayerProgress
from towline.reference import RepositoryName
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.scripted import Asked
    from towline.events import Event
    from towline.push.plan import Step
    from towline.spec.media_types import Compression

CONTENT = b"the bytes of a layer"
DIFF = Digest.of(CONTENT)
LARGE = 2 << 20
"""Bytes of a layer that is not held until its digest is known."""
NONE, GZIP = profiles.parse("none"), profiles.parse("gzip")
YES, NO = Reply(200, {"Content-Length": "9"}), Reply(404)
MOUNTED = Reply(201, {"Location": "/v2/team/app/blobs/x"})


def digest(letter: str) -> Digest:
    return Digest("sha256:" + letter * 64)


class Forgetful(Knowledge):
    """Keeps nothing but what it was told to forget: the last digit of a digest, and where."""

    def __init__(self) -> None:
        self.forgotten: list[tuple[str, str]] = []

    def forget(self, diff_id: Digest, digest: Digest, repository: str) -> None:
        assert diff_id == DIFF
        self.forgotten.append((digest[-1], repository.partition("/")[2]))


def candidate(letter: str, *, remembered: bool = True, learned: bool = False) -> Made:
    return Made(digest(letter), 9, "gzip", None, remembered=remembered, learned=learned)


def base(registry: Scripted, name: str = "base") -> RepositoryName:
    return RepositoryName(registry.host, name)


class Case:
    """An upload of a layer, and everything that it says."""

    def __init__(
        self,
        registry: Scripted,
        steps: Sequence[Step],
        *,
        shown: bool = True,
        stored: Descriptor | None = None,
        content: bytes = CONTENT,
        size: int = 9,
    ) -> None:
        self.registry = registry
        self.knowledge = Forgetful()
        self.events: list[Event] = []
        self.content = content
        self.client = Client(registry.host)
        self.transfer = Context(cancel=Cancel(), emit=self.events.append)
        self.profile = NONE if stored else GZIP
        self.upload = BlobUpload(
            Blob(DIFF, stored, size, lambda: BytesReader(content), is_layer=True, shown=shown),
            self.client.repository,
            [*steps, Send()],
            profile=self.profile,
            context=self.transfer,
            unfinished=Unfinished(self.knowledge, lambda: None),
            learn=True,
        )

    def words(self) -> list[str]:
        return [event.status for event in self.events if isinstance(event, LayerProgress)]

    def send(self, *, looked_into: bool = False) -> Delivered:
        assert self.upload.ask_or_mount() is None, "only sending is left"
        with ThreadPoolExecutor(1) as threads:
            stored = self.upload.blob.stored
            encoding = None if stored else self.profile
            diff_id_of: Compression | None = "gzip" if looked_into else None
            reader = BytesReader(self.content)
            stream = BlobStream(reader, encoding, threads, Cancel(), diff_id_of=diff_id_of)
            try:
                return self.upload.receive(stream)
            finally:
                stream.close()

    def found(self) -> Delivered:
        delivered = self.upload.ask_or_mount()
        assert delivered is not None
        return delivered

    def asked(self) -> list[str]:
        """What the registry was asked, but for the sending."""
        said = [_words(one) for one in self.registry.asked]
        return [words for words in said if words not in {"PATCH", "PUT"}]


def _words(asked: Asked) -> str:
    query = parse_qs(asked.query)
    if asked.method == "HEAD":
        return f"HEAD {asked.path[-1]}"
    if "mount" in query:
        return f"mount {query['mount'][0][-1]} from {query['from'][0]}"
    if asked.method == "DELETE":
        return f"DELETE {asked.path.rpartition('/')[2]}"
    return asked.method


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@contextmanager
def upload(
    registry: Scripted,
    *steps: Step,
    shown: bool = True,
    stored: Descriptor | None = None,
    content: bytes = CONTENT,
    size: int = 9,
) -> Iterator[Case]:
    made = Case(registry, steps, shown=shown, stored=stored, content=content, size=size)
    try:
        yield made
    finally:
        made.upload.drop()
        made.client.client.close()


# Ask.


def test_the_first_that_is_there_ends_it(registry: Scripted) -> None:
    registry.on("HEAD", "/blobs/", NO, YES)
    with upload(registry, *(Ask(candidate(letter)) for letter in "abc")) as case:
        delivered = case.found()
        assert delivered.made.digest == digest("b")
        assert (delivered.outcome, delivered.label) == ("exists", "reused")
        assert case.asked() == ["HEAD a", "HEAD b"]
        assert case.words() == ["Layer already exists"]


def test_what_was_remembered_and_is_not_there_is_forgotten_here_alone(registry: Scripted) -> None:
    asks = [Ask(candidate("a")), Ask(candidate("b", remembered=False))]
    with upload(registry, *asks) as case:
        assert case.upload.ask_or_mount() is None
        assert case.knowledge.forgotten == [("a", NAME)]


def test_without_a_candidate_nothing_is_asked(registry: Scripted) -> None:
    with upload(registry) as case:
        assert case.upload.ask_or_mount() is None
    assert registry.asked == []


def test_a_question_that_is_refused_is_taken_as_no_and_the_next_is_asked(
    registry: Scripted,
) -> None:
    registry.on("HEAD", "/blobs/", Reply(405), YES)
    with upload(registry, Ask(candidate("a")), Ask(candidate("b"))) as case:
        assert case.found().made.digest == digest("b")


@pytest.mark.parametrize(("answer", "error"), [(CUT, NetworkError), (Reply(500), RegistryError)])
def test_an_attempt_goes_on_at_the_question_that_failed(
    answer: Reply, error: type[Exception], registry: Scripted
) -> None:
    # The client itself asks once more where a connection that was kept is hung up on.
    registry.on("HEAD", "/blobs/", NO, answer, *([answer] if answer is CUT else []), YES)
    with upload(registry, Ask(candidate("a")), Ask(candidate("b"))) as case:
        with pytest.raises(error):
            case.upload.ask_or_mount()
        assert case.found().made.digest == digest("b")
        assert case.asked().count("HEAD a") == 1, "each digest is asked for once"


def test_a_question_that_keeps_failing_can_be_given_up_but_not_the_sending(
    registry: Scripted,
) -> None:
    registry.on("HEAD", "/blobs/", Reply(401), forever=True)
    with upload(registry, Ask(candidate("a"))) as case:
        with pytest.raises(AuthError):
            case.upload.ask_or_mount()
        assert case.upload.skip()
        assert case.upload.ask_or_mount() is None
        assert not case.upload.skip()
        assert case.knowledge.forgotten == [], "who is not let in has learned nothing of the blob"


def test_that_a_blob_is_there_does_not_tell_which_layer_it_is(registry: Scripted) -> None:
    registry.on("HEAD", "/blobs/", YES)
    with upload(registry, Ask(candidate("a", learned=True))) as case:
        delivered = case.found()
        assert delivered.made.learned


# Mount.


def test_a_mount_ends_it_and_names_where_from(registry: Scripted) -> None:
    registry.on("POST", "mount=", MOUNTED)
    with upload(registry, Mount(candidate("a"), base(registry), ours=True)) as case:
        delivered = case.found()
        assert (delivered.outcome, delivered.mounted_from) == ("mounted", "base")
        assert case.words() == ["Mounted from base"]
        assert case.knowledge.forgotten == []


@pytest.mark.parametrize(("ours", "forgotten"), [(True, [("a", "base")]), (False, [])])
def test_a_session_instead_of_a_mount_is_used_and_the_entry_forgotten_if_it_was_ours(
    ours: bool,  # noqa: FBT001 - a value
    forgotten: list[tuple[str, str]],
    registry: Scripted,
) -> None:
    registry.on("POST", "from=other", MOUNTED)
    with upload(registry, Mount(candidate("a"), base(registry), ours=ours)) as case:
        case.client.repository.mount(digest("f"), base(registry, "other"), case.transfer)
        assert case.send().outcome == "pushed"
        assert case.asked() == ["mount f from other", "mount a from base"], "no other is opened"
        assert case.knowledge.forgotten == forgotten


def test_a_registry_that_was_never_seen_to_mount_says_nothing_of_the_blob_by_a_session(
    registry: Scripted,
) -> None:
    with upload(registry, Mount(candidate("a"), base(registry), ours=True)) as case:
        case.send()
        assert case.knowledge.forgotten == []


def test_the_last_session_serves_and_a_refusal_takes_none_away(registry: Scripted) -> None:
    registry.on("POST", "from=three", Reply(404))
    origins = [base(registry, name) for name in ("one", "two", "three")]
    with upload(registry, *(Mount(candidate("a"), name, ours=False) for name in origins)) as case:
        delivered = case.send()
    mounts = [f"mount a from {name}" for name in ("one", "two", "three")]
    assert case.asked() == [*mounts[:2], "DELETE s0", mounts[2]]
    assert registry.blobs.keys() == {delivered.made.digest}
    assert registry.sessions == {}


# Send.


def test_the_first_block_opens_the_session_and_each_is_told(registry: Scripted) -> None:
    with upload(registry) as case:
        delivered = case.send()
    (content,) = registry.blobs.values()
    assert delivered.made == Made(Digest.of(content), len(content), "gzip", GZIP.recorded)
    assert (delivered.outcome, delivered.label) == ("pushed", "gzip")
    assert delivered.sent_bytes == len(content)
    assert not delivered.made.learned, "what we compressed ourselves is that layer"
    assert case.asked() == ["POST"]
    assert case.words()[0] == "Pushing"
    assert case.words()[-1] == "Pushed"


def test_an_empty_blob_has_a_session_of_its_own(registry: Scripted) -> None:
    empty = Descriptor(media_types.OCI_LAYER, Digest.of(b""), 0)
    with upload(registry, stored=empty, content=b"") as case:
        assert case.send().outcome == "pushed"
    assert registry.blobs == {empty.digest: b""}


@pytest.mark.parametrize("looked_into", [True, False])
def test_which_layer_a_stored_blob_is_is_known_when_it_was_looked_into(
    *, looked_into: bool, registry: Scripted
) -> None:
    packed = gzip.compress(CONTENT)
    stored = Descriptor(media_types.OCI_LAYER_GZIP, Digest.of(packed), len(packed))
    with upload(registry, stored=stored, content=packed) as case:
        assert case.send(looked_into=looked_into).made.learned != looked_into


def test_bytes_that_are_not_what_the_image_says_are_not_committed(registry: Scripted) -> None:
    with upload(registry, content=b"other bytes") as case:
        with pytest.raises(SourceError, match="DiffID"):
            case.send()
        case.upload.drop()
    assert registry.blobs == {}
    assert registry.sessions == {}, "it was given back"


def test_after_a_commit_that_failed_the_blob_is_asked_for_first(registry: Scripted) -> None:
    registry.on("PUT", "/uploads/", Reply(500))
    registry.on("HEAD", "/blobs/", Reply(500))  # by which the client tries to settle it
    with upload(registry, size=LARGE) as case:
        with pytest.raises(RegistryError):
            case.send()
        assert case.words()[-1] == "Pushing", "it is not there before the registry says so"
        (sent,) = (one.body for one in registry.asked if one.method == "PATCH")
        registry.blobs[Digest.of(sent)] = sent
        delivered = case.found()
        assert (delivered.outcome, delivered.label) == ("pushed", "gzip")
        assert delivered.sent_bytes == len(sent)
        assert case.words()[-1] == "Pushed"


def test_a_session_that_failed_and_holds_nothing_is_left_for_another(registry: Scripted) -> None:
    registry.on("PATCH", "/s0", Reply(500, early=0))
    registry.on("GET", "/s0", Reply(404))
    with upload(registry, size=LARGE) as case:
        with pytest.raises(RegistryError):
            case.send()
        assert case.send().outcome == "pushed"
    assert case.asked().count("POST") == 2
    assert len(registry.blobs) == 1


def test_a_session_is_given_back_when_the_blob_is_found_after_all(registry: Scripted) -> None:
    registry.on("HEAD", "/blobs/", YES)
    with upload(registry, Mount(candidate("a"), base(registry), ours=False)) as case:
        assert case.upload.ask_or_mount() is None
        case.upload.ask_first(candidate("b"))
        assert case.found().made.digest == digest("b")
        assert case.asked() == ["mount a from base", "HEAD b", "DELETE s0"]


def test_what_is_found_elsewhere_meanwhile_is_mounted_first(registry: Scripted) -> None:
    registry.on("POST", "mount=", MOUNTED)
    with upload(registry, Ask(candidate("a"))) as case:
        case.upload.mount_first(candidate("b"), base(registry))
        assert case.found().outcome == "mounted"
        assert case.asked() == ["mount b from base"]


@pytest.mark.parametrize("whose", ["of the transfer", "of the attempt alone"])
def test_a_switch_ends_a_write_that_is_stuck_and_the_transfer_may_go_on(
    whose: str, registry: Scripted
) -> None:
    registry.on("PATCH", "/s0", Reply(early=0, hang=True))
    with upload(registry, size=LARGE) as case:
        switch = case.transfer.cancel
        if whose != "of the transfer":
            switch = case.upload.attempt().cancel

        def throw() -> None:
            until(lambda: bool(registry.requests("PATCH")))
            switch.cancel()

        thrower = threading.Thread(target=throw)
        thrower.start()
        with pytest.raises(Cancelled):
            case.send()
        thrower.join()
        if whose != "of the transfer":
            assert case.send().outcome == "pushed"
            assert len(registry.blobs) == 1


def test_a_retry_is_told_in_dockers_words_or_for_a_config_as_an_event(registry: Scripted) -> None:
    with upload(registry) as layer, upload(registry, shown=False) as config:
        layer.upload.tell_retry(1.2, "busy")
        layer.upload.tell_retry(4.6, "busy")
        layer.upload.tell_retry(0.0, "it goes another way")
        config.upload.tell_retry(4.6, "busy")
        assert layer.words() == ["Retrying in 1 second (busy)", "Retrying in 5 seconds (busy)"]
        (event,) = config.events
        assert isinstance(event, Retrying)
        assert (event.seconds, event.reason) == (4.6, "busy")
