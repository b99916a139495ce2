"""A host that does not take a body in one way gets it in another: at once, and without a retry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support.pushing import client_of, send
from tests.support.quick import quick
from tests.support.scripted import CUT, Reply, complaint, scripted
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.pushing import Client
    from tests.support.scripted import Asked, Scripted

MiB = 1 << 20


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its layers are compressed: their digests and sizes are known."""
    layers = [{"noise": os.urandom(2 * MiB)}, {"more": os.urandom(3 * MiB)}, {"a": b"small"}]
    return make_image(tmp_path_factory.mktemp("image") / "stored", layers, format="oci").path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = [{"noise": os.urandom(2 * MiB)}, {"more": os.urandom(3 * MiB)}, {"a": b"small"}]
    return make_image(tmp_path_factory.mktemp("image") / "image.tar", layers).path


def push(registry: Scripted, image: Path, **options: Any) -> towline.PushResult:
    """Without a single retry."""
    result: towline.PushResult = towline.push(
        image, f"{registry.host}/team/app:1", retries=0, jobs=1, **options
    )
    blobs = [layer.digest for layer in result.layers]
    assert set(blobs) <= set(registry.blobs)
    return result


def limited(size: int, *answers: Reply) -> Any:
    def limit(asked: Asked) -> Reply | None:
        return answers[0] if len(asked.body) > size else None

    return limit


@pytest.mark.parametrize(
    ("refused", "pattern", "answer"),
    [
        ("PATCH", "/uploads/", Reply(405)),
        ("PATCH", "/uploads/", Reply(501)),
        ("PATCH", "/uploads/", complaint(405, "UNSUPPORTED")),
        ("PUT", "/uploads/.*digest", Reply(405)),
    ],
)
def test_a_shape_that_is_refused_gives_way_to_the_other(
    registry: Scripted, image: Path, refused: str, pattern: str, answer: Reply
) -> None:
    def refuse(asked: Asked) -> Reply | None:
        return answer if asked.body else None

    registry.on(refused, pattern, refuse, forever=True)
    assert push(registry, image).status == "pushed"


NO_CHUNKS = [
    *(Reply(status) for status in (400, 404, 405, 416, 501)),
    complaint(400, "UNSUPPORTED"),
    complaint(416, "RANGE_INVALID"),
]


@pytest.mark.parametrize("refusal", NO_CHUNKS, ids=lambda one: f"{one.status}-{len(one.body)}")
@pytest.mark.parametrize("first", [0, 1])
def test_a_blob_in_chunks_that_are_refused_goes_in_one_body_and_the_next_at_once(
    registry: Scripted, image: Path, refusal: Reply, first: int
) -> None:
    def refuse(asked: Asked) -> Reply | None:
        span = asked.header("Content-Range")
        return refusal if span and (not first or not span.startswith("0-")) else None

    registry.on("PATCH", "/uploads/", refuse, forever=True)
    assert push(registry, image, chunk_size=MiB).status == "pushed"
    before = len(registry.asked)
    registry.blobs.clear()
    registry.manifests.clear()
    assert push(registry, image, chunk_size=MiB, no_learn=True).status == "pushed"
    assert not [asked for asked in registry.asked[before:] if asked.header("Content-Range")]
    planned = towline.plan(image, f"{registry.host}/team/app:2")
    assert isinstance(planned, towline.PlanResult)
    assert f"{registry.host} takes no blob in chunks: every layer goes in one body" in (
        planned.warnings
    )


class ChunksThatComeToNothing:
    """A host that takes no blob in several bodies, and says so late. No chunk of it is kept."""

    def __init__(self, registry: Scripted, body_max: tuple[str, int] | None = None) -> None:
        """`body_max`: a method, and the bytes of a body above which it is refused by 413."""
        self._registry = registry
        self._limited, self._body_max = body_max or ("", 0)
        self.failed = 0
        """Blobs in chunks that came to nothing."""
        for method in ("PATCH", "PUT"):
            registry.on(method, "/uploads/", self._answer, forever=True)

    def refused(self, asked: Asked) -> Reply | None:
        raise NotImplementedError

    def _answer(self, asked: Asked) -> Reply | None:
        if (
            self._limited
            and asked.method.startswith(self._limited)
            and len(asked.body) > self._body_max
        ):
            return Reply(413)
        refusal = self.refused(asked)
        if refusal is not None:
            self.failed += 1
            self._registry.sessions.pop(session_of(asked), None)
        return refusal


class SecondRefused(ChunksThatComeToNothing):
    """Google's registries: the second PATCH of a session finds none."""

    def refused(self, asked: Asked) -> Reply | None:
        first = (asked.header("Content-Range") or "0-").startswith("0-")
        if asked.method != "PATCH" or first:
            return None
        return complaint(404, "BLOB_UPLOAD_INVALID", "blob upload invalid")


class DigestRefused(ChunksThatComeToNothing):
    """ECR Public: each chunk is taken, and at the end none of the digests match."""

    def refused(self, asked: Asked) -> Reply | None:
        session = session_of(asked)
        chunks = [
            one for one in self._registry.requests("PATCH", session) if one.header("Content-Range")
        ]
        if asked.method != "PUT" or not chunks:
            return None
        words = "None of the provided layer digests match the computed digest"
        return complaint(400, "BLOB_UPLOAD_INVALID", words)


def session_of(asked: Asked) -> str:
    return asked.path.rpartition("/")[2]


@pytest.mark.parametrize("host", [SecondRefused, DigestRefused])
class TestHostsThatTakeNoChunksAndSaySoLate:
    @pytest.mark.parametrize("known", [False, True])
    def test_are_pushed_to_in_one_body_after_two_failures_and_remembered(
        self,
        registry: Scripted,
        image: Path,
        stored: Path,
        host: type[ChunksThatComeToNothing],
        *,
        known: bool,
    ) -> None:
        source = stored if known else image
        quirky = host(registry)
        assert push(registry, source, chunk_size=MiB).status == "pushed"
        assert 0 < quirky.failed <= 2
        planned = towline.plan(source, f"{registry.host}/team/app:2")
        assert isinstance(planned, towline.PlanResult)
        assert f"{registry.host} takes no blob in chunks: every layer goes in one body" in (
            planned.warnings
        )
        quirky.failed = 0
        registry.blobs.clear()
        registry.manifests.clear()
        assert push(registry, source, chunk_size=MiB, no_learn=True).status == "pushed"
        assert not quirky.failed

    def test_are_pushed_to_in_the_one_body_that_is_not_too_large(
        self, registry: Scripted, stored: Path, host: type[ChunksThatComeToNothing]
    ) -> None:
        """One of the two ways of one body is limited; the other was never tried."""
        quirky = host(registry, ("PUT", MiB))
        assert push(registry, stored).status == "pushed"
        assert 0 < quirky.failed <= 2
        quirky.failed = 0
        registry.asked.clear()
        registry.blobs.clear()
        registry.manifests.clear()
        assert push(registry, stored, no_learn=True).status == "pushed"
        assert not quirky.failed
        assert all(len(asked.body) <= MiB for asked in registry.requests("PUT")), "nor that one"

    def test_that_limit_every_body_are_an_error_and_nothing_wrong_is_remembered(
        self, registry: Scripted, image: Path, host: type[ChunksThatComeToNothing]
    ) -> None:
        host(registry, ("P", MiB))
        with pytest.raises(towline.RegistryError):
            push(registry, image)
        assert len(registry.requests("POST")) <= 12
        planned = towline.plan(image, f"{registry.host}/team/app:2")
        assert isinstance(planned, towline.PlanResult)
        assert not any("in chunks: every layer" in warning for warning in planned.warnings)


def test_a_host_that_has_kept_a_blob_in_chunks_only_loses_its_sessions(
    registry: Scripted, image: Path, tmp_path: Path
) -> None:
    other = make_image(tmp_path / "other.tar", [{"noise": os.urandom(3 * MiB)}]).path
    lost = complaint(404, "BLOB_UPLOAD_INVALID")
    with towline.Pusher(cache="none", chunk_size=MiB) as pusher:
        quick(pusher).push(image, f"{registry.host}/team/app:1")
        registry.asked.clear()
        for _ in range(3):
            registry.on("PATCH", "/uploads/", lambda _: None, lost)
        pusher.push(other, f"{registry.host}/team/app:2")
    assert len(registry.requests("PATCH")) == 3 * 2 + 4
    assert all(asked.header("Content-Range") for asked in registry.requests("PATCH"))


def test_chunks_of_a_session_that_was_lost_are_no_reason_to_send_none(
    registry: Scripted, image: Path
) -> None:
    lost = complaint(404, "BLOB_UPLOAD_UNKNOWN")
    registry.on("PATCH", "/uploads/", lambda asked: None, lost)
    towline.push(image, f"{registry.host}/team/app:1", chunk_size=MiB, retries=1)
    assert all(asked.header("Content-Range") for asked in registry.requests("PATCH"))


def test_a_layer_too_large_to_be_held_is_read_twice_where_its_digest_is_wanted_first(
    registry: Scripted, tmp_path: Path
) -> None:
    registry.on("PATCH", "/uploads/", Reply(405), forever=True)
    large = make_image(tmp_path / "large.tar", [{"noise": os.urandom(17 * MiB)}]).path
    result = push(registry, large)
    assert result.status == "pushed"
    registry.asked.clear()
    registry.blobs.clear()
    registry.manifests.clear()
    again = push(registry, large, no_learn=True)
    assert again.digest == result.digest
    assert not registry.requests("PATCH"), "the next push makes no mistake twice"
    assert len(registry.requests("POST")) == len(registry.requests("PUT", "digest="))
    assert again.layers[0].sent_bytes == again.layers[0].size


def test_a_length_that_is_wanted_is_given(registry: Scripted, image: Path) -> None:
    def want(asked: Asked) -> Reply | None:
        return Reply(411) if asked.header("Transfer-Encoding") else None

    registry.on("PATCH", "/uploads/", want, forever=True)
    assert push(registry, image).status == "pushed"


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("limit", [1 << 18, MiB])
@pytest.mark.parametrize("status", [413, 416])
def test_a_limit_of_a_body_is_found(
    registry: Scripted, image: Path, method: str, limit: int, status: int
) -> None:
    answer = complaint(status, "SIZE_INVALID", "request body is too large")
    for each in ("PATCH", "PUT"):
        registry.on(each, "/uploads/", limited(limit, answer), forever=True)
    events: list[Any] = []
    compression = {"PATCH": "gzip", "PUT": "none"}[method]  # of known digest: one PUT
    result = push(registry, image, compression=compression, on_event=events.append)
    assert result.status == "pushed"
    assert not [event for event in events if "Retrying" in getattr(event, "status", "")]


def too_large(asked: Asked) -> Reply | None:
    return Reply(413) if len(asked.body) > MiB else None


def too_small(asked: Asked) -> Reply | None:
    start, _, end = (asked.header("Content-Range") or "0-9999999").partition("-")
    small = int(end) - int(start) < MiB and int(end) < 2 * MiB  # but for the last
    return complaint(400, "UNKNOWN", "part too small") if small else None


def open_length(asked: Asked) -> Reply | None:
    return Reply(411) if asked.header("Transfer-Encoding") else None


def patch(asked: Asked) -> Reply | None:
    return Reply(405) if asked.method == "PATCH" else None


def put(asked: Asked) -> Reply | None:
    return Reply(405) if asked.method == "PUT" and asked.body else None


@pytest.mark.parametrize(
    ("limit", "chunk_size"),
    [
        (too_large, "auto"),
        (too_small, MiB // 2),
        (open_length, "auto"),
        (patch, "auto"),
        (put, "auto"),
    ],
)
def test_a_limit_is_remembered_by_the_next_command(
    registry: Scripted,
    image: Path,
    limit: Callable[[Asked], Reply | None],
    chunk_size: int | str,
) -> None:
    refused = 0

    def limited(asked: Asked) -> Reply | None:
        nonlocal refused
        refusal = limit(asked)
        refused += refusal is not None
        return refusal

    for method in ("PATCH", "PUT"):
        registry.on(method, "/uploads/", limited, forever=True)
    push(registry, image, chunk_size=chunk_size)
    assert refused
    refused = 0
    registry.blobs.clear()
    registry.manifests.clear()
    push(registry, image, chunk_size=chunk_size)
    assert not refused


def test_a_plan_says_what_is_known_of_the_host(registry: Scripted, image: Path) -> None:
    for each in ("PATCH", "PUT"):
        registry.on(each, "/uploads/", limited(MiB, Reply(413)), forever=True)
    name = f"{registry.host}/team/app:1"
    before = towline.plan(image, name)
    assert isinstance(before, towline.PlanResult)
    assert before.warnings == ()
    push(registry, image)
    unchanged = towline.plan(image, name)
    registry.blobs.clear()
    registry.manifests.clear()
    planned = towline.plan(image, name)
    for plan, status in ((unchanged, "unchanged"), (planned, "pushed")):
        assert isinstance(plan, towline.PlanResult)
        assert plan.status == status
        assert [warning for warning in plan.warnings if "no body of more than about" in warning]


def test_what_no_way_leads_around_is_one_error_with_its_hint(
    registry: Scripted, image: Path
) -> None:
    for each in ("PATCH", "PUT"):
        registry.on(each, "/uploads/", limited(10, Reply(413)), forever=True)
    with pytest.raises(towline.RegistryError, match="413") as caught:
        push(registry, image)
    assert "limits the size of a request" in str(caught.value.hint)


class TestLargeLayers:
    """`--chunk-size auto`: in chunks where they are known to survive a cut, elsewhere in one."""

    @pytest.fixture
    def client(self, registry: Scripted) -> Iterator[Client]:
        with client_of(registry) as client:
            yield client

    def upload(self, client: Client, about: int) -> None:
        send(client.repository.start_upload(client.context, None, about), b"x" * MiB)

    def test_a_large_layer_goes_in_one_body_where_nothing_is_known(
        self, registry: Scripted, client: Client
    ) -> None:
        self.upload(client, 300 * MiB)
        (patch,) = registry.requests("PATCH")
        assert patch.header("Content-Range") is None

    def test_a_large_layer_goes_in_chunks_where_one_has_survived(
        self, registry: Scripted, client: Client
    ) -> None:
        registry.on("PATCH", "/uploads/", lambda asked: None, CUT)
        client.repository.facts.body_max = 1 << 18
        send(client.repository.start_upload(client.context), b"y" * MiB)
        assert client.repository.facts.resumes
        client.repository.facts.body_max = None
        before = len(registry.asked)
        self.upload(client, 300 * MiB)
        self.upload(client, 200 * MiB)
        large, *small = [
            asked for asked in registry.asked[before:] if asked.method in {"PATCH", "PUT"}
        ]
        # What fits into one chunk needs no PATCH: it goes with the digest.
        assert (large.method, len(large.body)) == ("PUT", MiB)
        assert [asked.method for asked in small] == ["PATCH", "PUT"]
        assert small[0].header("Transfer-Encoding") == "chunked"
