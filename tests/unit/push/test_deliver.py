"""One blob at one target, step by step, at a repository that says what a test wants said."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.layers import BytesReader
from towline.context import Cancel, Context
from towline.errors import AuthError, NetworkError, RegistryError, SourceError
from towline.events import LayerProgress, Retrying
from towline.layers import profile as profiles
from towline.layers.blobstream import Blob as Sent
from towline.push.deliver import Delivered, Delivery, NeedsBytes
from towline.push.plan import Ask, Candidate, Mount, Send
from towline.push.wanted import Blob
from towline.reference import RepositoryName
from towline.registry.repository import Mounted
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.events import Event
    from towline.push.plan import Step

DIFF = Digest("sha256:" + "d" * 64)
GZIP = profiles.parse("gzip")
HERE = RepositoryName("reg.example", "app")
BASE = RepositoryName("reg.example", "base")


def digest(letter: str) -> Digest:
    return Digest("sha256:" + letter * 64)


def candidate(letter: str, *, remembered: bool = True, profile: str | None = None) -> Candidate:
    return Candidate(digest(letter), 9, "gzip", profile, remembered=remembered)


class Session:
    def __init__(self, place: Place, name: str) -> None:
        self.sent = 0
        self.resumed = False
        self.acknowledged = 0
        self._place = place
        self._name = name

    def write(self, block: bytes | memoryview) -> None:
        self.sent += len(block)
        self._place.calls.append(f"write to {self._name}")

    def commit(self, digest: str) -> None:
        self._place.calls.append(f"commit {self._name}")
        self._place.say()

    def rewind(self) -> bool:
        self._place.calls.append(f"rewind {self._name}")
        return False

    def cancel(self) -> None:
        self._place.calls.append(f"cancel {self._name}")


class Place:
    """A repository whose answers are given in advance; what is asked of it is kept."""

    name = HERE
    mounts = True

    def __init__(self, *answers: object) -> None:
        self.calls: list[str] = []
        self._answers = deque(answers)
        self._sessions = 0

    def say(self) -> object:
        answer = self._answers.popleft() if self._answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def session(self) -> Session:
        self._sessions += 1
        return Session(self, f"session {self._sessions}")

    def has_blob(self, digest: str, context: Context, *, size: int | None = None) -> bool:
        self.calls.append(f"ask {digest[-1]}")
        return self.say() == "there"

    def mount(
        self, digest: str, origin: RepositoryName, context: Context, *, size: int | None = None
    ) -> Mounted | Session | None:
        self.calls.append(f"mount {digest[-1]} from {origin.path}")
        match self.say():
            case "mounted":
                return Mounted()
            case "session":
                return self.session()
        return None

    def start_upload(
        self, context: Context, known: Descriptor | None = None, about: int = 0
    ) -> Session:
        self.calls.append("start")
        return self.session()


class Case:
    """A delivery, and everything that it says."""

    def __init__(
        self,
        place: Place,
        steps: Sequence[Step],
        *,
        shown: bool = True,
        stored: Descriptor | None = None,
    ) -> None:
        self.place = place
        self.forgotten: list[tuple[str, str]] = []
        self.events: list[Event] = []
        blob = Blob(DIFF, stored, 9, lambda: BytesReader(b""), is_layer=True, shown=shown)
        self.delivery = Delivery(
            blob,
            place,
            [*steps, Send()],
            profile=GZIP,
            context=Context(cancel=Cancel(), emit=self.events.append),
            forget=lambda _, found, name: self.forgotten.append((found[-1], name.path)),
        )

    def words(self) -> list[str]:
        return [event.status for event in self.events if isinstance(event, LayerProgress)]

    def send(self, letter: str = "e", diff_id: Digest | None = DIFF) -> Delivered:
        assert isinstance(self.delivery.settle(), NeedsBytes)
        seat = self.delivery.seat()
        seat.write(b"123456789")
        return self.delivery.finish(seat, Sent(digest(letter), 9, diff_id))


def test_the_first_that_is_there_ends_it() -> None:
    case = Case(Place("no", "there"), [Ask(candidate(letter)) for letter in "abc"])
    delivered = case.delivery.settle()
    assert isinstance(delivered, Delivered)
    assert (delivered.made.digest, delivered.outcome, delivered.label) == (
        digest("b"),
        "exists",
        "reused",
    )
    assert case.place.calls == ["ask a", "ask b"]
    assert case.words() == ["Layer already exists"]


def test_what_was_remembered_and_is_not_there_is_forgotten_here_alone() -> None:
    asks = [Ask(candidate("a")), Ask(candidate("b", remembered=False))]
    case = Case(Place("no", "no"), asks)
    assert isinstance(case.delivery.settle(), NeedsBytes)
    assert case.forgotten == [("a", "app")]


def test_without_a_candidate_nothing_is_asked() -> None:
    case = Case(Place(), [])
    assert isinstance(case.delivery.settle(), NeedsBytes)
    assert case.place.calls == []


def test_a_refused_question_forgets_nothing_and_the_next_is_asked() -> None:
    refused = RegistryError("no", status=405)
    case = Case(Place(refused, "there"), [Ask(candidate("a")), Ask(candidate("b"))])
    assert isinstance(case.delivery.settle(), Delivered)
    assert case.place.calls == ["ask a", "ask b"]
    assert case.forgotten == []


@pytest.mark.parametrize(
    "error",
    [NetworkError("cut", transient=True), RegistryError("500", status=500, transient=True)],
)
def test_an_attempt_goes_on_at_the_step_that_failed(error: Exception) -> None:
    steps = [Ask(candidate("a")), Ask(candidate("b"))]
    case = Case(Place("no", error, "there"), steps)
    with pytest.raises(type(error)):
        case.delivery.settle()
    assert isinstance(case.delivery.settle(), Delivered)
    assert case.place.calls == ["ask a", "ask b", "ask b"], "each digest is asked for once"


def test_a_step_that_keeps_failing_can_be_given_up_but_not_the_sending() -> None:
    case = Case(Place(AuthError("no", status=401)), [Ask(candidate("a"))])
    with pytest.raises(AuthError):
        case.delivery.settle()
    assert case.delivery.skip()
    assert isinstance(case.delivery.settle(), NeedsBytes)
    assert not case.delivery.skip()
    assert case.forgotten == [], "who is not let in has learned nothing of the blob"


def test_a_mount_ends_it_and_names_where_from() -> None:
    case = Case(Place("mounted"), [Mount(candidate("a"), BASE, ours=True)])
    delivered = case.delivery.settle()
    assert isinstance(delivered, Delivered)
    assert (delivered.outcome, delivered.mounted_from) == ("mounted", "base")
    assert case.words() == ["Mounted from base"]
    assert case.forgotten == []


@pytest.mark.parametrize(("ours", "forgotten"), [(True, [("a", "base")]), (False, [])])
def test_a_session_instead_of_a_mount_is_used_and_the_entry_forgotten_if_it_was_ours(
    ours: bool,  # noqa: FBT001 - a value
    forgotten: list[tuple[str, str]],
) -> None:
    case = Case(Place("session"), [Mount(candidate("a"), BASE, ours=ours)])
    delivered = case.send()
    assert delivered.outcome == "pushed"
    assert case.place.calls == ["mount a from base", "write to session 1", "commit session 1",
                                "cancel session 1"]  # fmt: skip
    assert case.forgotten == forgotten


def test_a_registry_that_was_never_seen_to_mount_says_nothing_of_the_blob_by_a_session() -> None:
    place = Place("session")
    place.mounts = False
    case = Case(place, [Mount(candidate("a"), BASE, ours=True)])
    case.send()
    assert case.forgotten == []


def test_the_last_session_serves_and_a_refusal_takes_none_away() -> None:
    origins = [RepositoryName("reg.example", name) for name in ("one", "two", "three")]
    case = Case(
        Place("session", "session", "refused"),
        [Mount(candidate("a"), origin, ours=False) for origin in origins],
    )
    case.send()
    assert case.place.calls[3:] == [
        "mount a from three",
        "write to session 2",
        "commit session 2",
        "cancel session 2",
    ]
    assert case.place.calls[2] == "cancel session 1"


def test_a_session_is_left_when_the_blob_is_found_after_all() -> None:
    case = Case(Place("session", "there"), [Mount(candidate("a"), BASE, ours=False)])
    assert isinstance(case.delivery.settle(), NeedsBytes)
    case.delivery.ask(candidate("b"))
    assert isinstance(case.delivery.settle(), Delivered)
    assert case.place.calls[-1] == "cancel session 1"


def test_after_a_commit_that_failed_the_blob_is_asked_for_first() -> None:
    lost = NetworkError("the answer was lost", transient=True)
    case = Case(Place(lost, "there"), [])
    with pytest.raises(NetworkError):
        case.send("e")
    assert case.words()[-1] == "Pushing", "it is not there before the registry says so"
    delivered = case.delivery.settle()
    assert isinstance(delivered, Delivered)
    assert (delivered.outcome, delivered.label, delivered.sent_bytes) == ("pushed", "gzip", 9)
    assert case.place.calls[-2:] == ["ask e", "cancel session 1"]
    assert case.words()[-1] == "Pushed"


def test_a_session_that_failed_is_rewound_or_left() -> None:
    lost = NetworkError("cut", transient=True)
    case = Case(Place(lost, "no"), [])
    with pytest.raises(NetworkError):
        case.send()
    case.send()
    assert case.place.calls[3:] == [
        "ask e",
        "rewind session 1",
        "cancel session 1",
        "start",
        "write to session 2",
        "commit session 2",
        "cancel session 2",
    ]


def test_bytes_that_are_not_what_the_image_says_are_not_committed() -> None:
    case = Case(Place(), [])
    assert isinstance(case.delivery.settle(), NeedsBytes)
    seat = case.delivery.seat()
    seat.write(b"other")
    with pytest.raises(SourceError, match="DiffID"):
        case.delivery.finish(seat, Sent(digest("e"), 5, digest("f")))
    assert not any(call.startswith("commit") for call in case.place.calls)


def test_that_a_blob_is_there_does_not_tell_which_layer_it_is() -> None:
    told = replace(candidate("a"), learned=True)
    delivered = Case(Place("there"), [Ask(told)]).delivery.settle()
    assert isinstance(delivered, Delivered)
    assert delivered.learned
    assert delivered.candidate.learned


@pytest.mark.parametrize("looked_into", [True, False])
def test_which_layer_a_stored_blob_is_is_known_when_it_was_looked_into(
    *, looked_into: bool
) -> None:
    stored = Descriptor(media_types.OCI_LAYER_GZIP, digest("e"), 9)
    case = Case(Place(), [], stored=stored)
    assert case.send("e", DIFF if looked_into else None).learned != looked_into


def test_what_we_compressed_ourselves_is_that_layer() -> None:
    assert not Case(Place(), []).send().learned


def test_a_retry_is_told_in_dockers_words_or_for_a_config_as_an_event() -> None:
    layer, config = Case(Place(), []), Case(Place(), [], shown=False)
    layer.delivery.tell_retry(1.2, "busy")
    layer.delivery.tell_retry(4.6, "busy")
    config.delivery.tell_retry(4.6, "busy")
    assert layer.words() == ["Retrying in 1 second (busy)", "Retrying in 5 seconds (busy)"]
    (event,) = config.events
    assert isinstance(event, Retrying)
    assert (event.seconds, event.reason) == (4.6, "busy")
