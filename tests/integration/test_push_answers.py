"""What registries answer to blobs, mounts and manifests, and that each answer ends in an image."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support.guards import Tokens, scopes_of
from tests.support.quick import quick
from tests.support.scripted import CUT, HANG, Reply, complaint, scripted
from towline.spec.digest import Digest
from towline.testing.images import ImageSpec, make_image, make_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.scripted import Asked, Scripted
    from towline.testing.image_formats import Made

LAYER = [{"hello": b"hello\n", "room": bytes(1 << 20)}]
"""One layer, so that it is certain which blob a request is about; too large to go in one PUT."""


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_image(tmp_path / "image.tar", LAYER)


@pytest.fixture
def pusher(tmp_path: Path) -> Iterator[towline.Pusher]:
    with towline.Pusher(cache=tmp_path / "cache", retries=1) as made:
        yield quick(made)


def whole(registry: Scripted, tag: str = "1") -> bool:
    """Whether everything that a manifest lists is there."""
    _, content = registry.manifests[tag]
    manifest = json.loads(content)
    listed = [manifest["config"], *manifest["layers"]]
    return all(one["digest"] in registry.blobs for one in listed if "urls" not in one)


# The end of an upload.


def test_a_commit_whose_answer_is_lost_is_asked_for_and_not_sent_again(
    registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    def lost(asked: Asked) -> Reply:
        registry.sound(asked)
        return CUT

    registry.on("PUT", "digest=", lost, lost)
    result = pusher.push(made.path, f"{registry.host}/app:1")
    assert whole(registry)
    assert result.layers[0].outcome == "pushed"
    assert result.layers[0].sent_bytes == result.layers[0].size
    assert len(registry.requests("PATCH")) == 1


def test_a_commit_that_nobody_can_tell_the_end_of_is_asked_for_before_the_next_attempt(
    registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    cut: list[Asked] = []

    def lost(asked: Asked) -> Reply | None:
        if asked.body or len(cut) == 2:
            return None  # the config, or enough
        if not cut:
            registry.on("HEAD", asked.target.rpartition("sha256")[2][-64:], Reply(500))
        cut.append(asked)
        registry.sound(asked)
        return CUT

    registry.on("PUT", "digest=", lost, forever=True)
    result = pusher.push(made.path, f"{registry.host}/app:1")
    assert whole(registry)
    assert (result.layers[0].outcome, len(cut)) == ("pushed", 2)
    assert len(registry.requests("PATCH")) == 1, "its bytes went once"


@pytest.mark.parametrize(("status", "code"), [(403, "DENIED"), (400, "NAME_INVALID")])
def test_a_commit_that_is_refused_for_good_is_not_sent_for_ever(
    status: int, code: str, registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    registry.on("PUT", "digest=", complaint(status, code), forever=True)
    with pytest.raises((towline.RegistryError, towline.AuthError)) as caught:
        pusher.push(made.path, f"{registry.host}/app:1")
    assert caught.value.status == status
    assert len(registry.requests("PATCH")) <= 1
    assert not registry.manifests


def test_a_digest_that_does_not_agree_is_sent_once_more(
    registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    refused: set[str] = set()

    def refuse(asked: Asked) -> Reply | None:
        digest = asked.query.rpartition("digest=")[2]
        first = digest not in refused
        refused.add(digest)
        return complaint(400, "DIGEST_INVALID") if first else None

    registry.on("PUT", "digest=", refuse, forever=True)
    pusher.push(made.path, f"{registry.host}/app:1")
    assert whole(registry)


# The manifest.


@pytest.mark.parametrize("status", [400, 404])
def test_a_blob_that_a_registry_has_lost_is_sent_again(
    status: int, registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    def loses(asked: Asked) -> Reply:
        layer = json.loads(asked.body)["layers"][0]["digest"]
        del registry.blobs[layer]
        return complaint(status, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", layer)

    registry.on("PUT", "/manifests/", loses)
    result = pusher.push(made.path, f"{registry.host}/app:1")
    assert whole(registry)
    assert result.status == "pushed"
    assert len(registry.requests("PATCH")) == 2
    assert len(registry.requests("PUT", "/manifests/")) == 2


BOTH_WAYS = [
    {"code": "DIGEST_INVALID", "message": "provided digest did not match uploaded content"},
    {"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry"},
]


@pytest.mark.parametrize(
    ("answer", "times"),
    [
        (complaint(400, "MANIFEST_BLOB_UNKNOWN"), 2),
        (complaint(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown", {"digest": "sha256:0"}), 1),
        (Reply(400, {"Content-Type": "application/json"}, json.dumps({"errors": BOTH_WAYS})), 1),
        (complaint(404, "BLOB_UNKNOWN", "blob unknown to registry"), 1),
        (complaint(400, "MANIFEST_INVALID", "manifest invalid", "Unknown blob `sha256:0`"), 1),
    ],
    ids=["400", "404", "in two ways", "of a blob", "in words"],
)
def test_a_registry_that_only_was_slow_to_know_a_blob_gets_the_manifest_again(
    answer: Reply, times: int, registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    registry.on("PUT", "/manifests/", *times * [answer])
    pusher.push(made.path, f"{registry.host}/app:1")
    assert whole(registry)
    assert len(registry.requests("PATCH")) == 1
    assert len(registry.requests("PUT", "/manifests/")) == times + 1
    blobs = len(made.diff_ids) + 1
    puts = [n for n, one in enumerate(registry.asked) if "/manifests/" in one.target][-times - 1 :]
    between = registry.asked[puts[-2] + 1 : puts[-1]]
    assert [one.method for one in between] == blobs * ["HEAD"], "asked for, and sent nothing"
    assert registry.asked[-1].path.endswith("/manifests/1"), "the tag last"


def test_a_registry_that_never_knows_a_blob_ends_in_its_own_words_and_no_tag(
    registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    never = complaint(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", "sha256:abc")
    registry.on("PUT", "/manifests/", never, forever=True)
    with pytest.raises(towline.RegistryError, match=r"MANIFEST_BLOB_UNKNOWN.*sha256:abc"):
        pusher.push(made.path, f"{registry.host}/app:1")
    assert len(registry.requests("PUT", "/manifests/")) == 4
    assert not registry.manifests


def test_a_tag_that_cannot_be_made_whole_again_leaves_nothing_to_the_next(
    registry: Scripted, tmp_path: Path
) -> None:
    """Of its blobs one is refused; the upload of another is given up, and begun anew for the next.

    That next tag then misses a third: what came of the one that was given up is not for it.
    """
    noise = Random(1)  # noqa: S311 - no secret
    first, second, third = ({"f": noise.randbytes(size << 10)} for size in (10, 20, 30))
    images = [ImageSpec([first, second]), ImageSpec([second, third], names=("app:2",))]
    made = make_images(tmp_path / "image.tar", images, "docker-containerd")
    lost: list[int] = []

    def put(asked: Asked) -> Reply | None:
        """The first tag misses two, the second one of those, and then a third."""
        layers = json.loads(asked.body)["layers"]
        now = {0: layers, 1: layers[:1], 2: layers[1:]}.get(len(lost), [])
        lost.append(len(now))
        for layer in now:
            registry.blobs.pop(layer["digest"], None)
        return complaint(404, "MANIFEST_BLOB_UNKNOWN") if now else None

    def body(asked: Asked) -> Reply | None:
        if len(lost) != 1:
            return None
        return Reply(403) if len(asked.body) >> 10 == 10 else HANG

    registry.on("PUT", "/manifests/", put, forever=True)
    for method in ("PATCH", "PUT"):
        registry.on(method, "/uploads/", body, forever=True)
    with (
        quick(towline.Pusher(cache="none", retries=0)) as pusher,
        pytest.raises(towline.PartialFailure) as caught,
    ):
        pusher.push(made[0].path, f"{registry.host}/app", all_tags=True)
    one, other = caught.value.results
    assert isinstance(one, towline.AuthError)
    assert isinstance(other, towline.PushResult), repr(other)
    assert lost == [2, 1, 1, 0]
    assert whole(registry, "2")


@pytest.mark.parametrize("lie", [Reply(200), Reply(307, {"Location": "http://storage.invalid/x"})])
def test_a_blob_that_a_registry_wrongly_says_it_has_is_sent_once_the_manifest_misses_it(
    lie: Reply, registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    def misses(asked: Asked) -> Reply | None:
        document = json.loads(asked.body)
        wanted = [blob["digest"] for blob in (document["config"], *document["layers"])]
        lost = [digest for digest in wanted if digest not in registry.blobs]
        errors = [{"code": "MANIFEST_BLOB_UNKNOWN", "detail": {"digest": one}} for one in lost]
        return Reply(400, (), json.dumps({"errors": errors})) if lost else None

    registry.on("HEAD", "/blobs/", lie, forever=True)
    registry.on("PUT", "/manifests/", misses, forever=True)
    pusher.push(made.path, f"{registry.host}/app:1")
    assert whole(registry)


def test_a_registry_that_hangs_up_when_asked_for_a_blob_is_sent_it(
    registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    registry.on("HEAD", "/blobs/", Reply(raw=b""), forever=True)
    pusher.push(made.path, f"{registry.host}/app:1")
    assert whole(registry)


@pytest.mark.parametrize("kind", ["blobs", "manifests"])
def test_a_verification_asks_again_for_what_a_registry_does_not_show_yet(
    kind: str, registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    hidden: list[str] = []

    def not_yet(asked: Asked) -> Reply | None:
        if not registry.manifests or asked.path in hidden:
            return None
        hidden.append(asked.path)
        return Reply(404)

    registry.on("HEAD", f"/{kind}/", not_yet, forever=True)
    pusher.push(made.path, f"{registry.host}/app:1", verify="head")
    assert hidden


def test_a_blob_that_a_registry_only_says_it_has_is_found_by_reading_it(
    registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    """As one that remembers what its garbage collection has taken."""

    def loses_layer(asked: Asked) -> Reply:
        reply = registry.sound(asked)
        registry.blobs.pop(json.loads(asked.body)["layers"][0]["digest"], None)
        return reply

    registry.on("PUT", "/manifests/", loses_layer, forever=True)
    registry.on("HEAD", "/blobs/", Reply(200), forever=True)
    pusher.push(made.path, f"{registry.host}/app:1", verify="head")
    with pytest.raises(towline.RegistryError, match=r"verification .* blob sha256:\w+ is missing"):
        pusher.push(made.path, f"{registry.host}/app:2", verify="full")


def test_a_tag_that_holds_something_else_afterwards_fails_the_verification(
    registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    def moved(asked: Asked) -> Reply:
        reply = registry.sound(asked)
        registry.manifests["1"] = ("application/vnd.oci.image.manifest.v1+json", b"{}")
        return reply

    registry.on("PUT", "/manifests/", moved)
    with pytest.raises(towline.RegistryError, match=r"failed: the tag 1 holds sha256:\w+ instead"):
        pusher.push(made.path, f"{registry.host}/app:1", verify="head")


# Accounts.


def test_a_blob_that_another_account_has_seen_there_is_remembered_for_ours_too(
    registry: Scripted, made: Made, tmp_path: Path
) -> None:
    challenge = Reply(401, {"WWW-Authenticate": "Basic"})
    registry.guard = lambda asked: None if asked.header("Authorization") else challenge
    (diff_id,) = made.diff_ids
    seen: list[set[str]] = []
    for tag, user in enumerate(("one", "two", "two")):
        with towline.Pusher(cache=tmp_path / "cache", creds=(user, "word")) as pusher:
            result = pusher.push(made.path, f"{registry.host}/app:{tag}")
            entries = pusher._resources.knowledge.entries([diff_id])[diff_id]
        assert result.layers[0].outcome == ("exists" if tag else "pushed")
        assert {entry.repository for entry in entries} == {f"{registry.host}/app"}
        assert {entry.digest for entry in entries} == {result.layers[0].digest}
        assert len({entry.account for entry in entries}) == len(entries)
        seen.append({entry.account for entry in entries})
    assert [len(accounts) for accounts in seen] == [1, 2, 2]
    assert "" not in seen[2]


# Mounts.


@pytest.fixture
def known(registry: Scripted, pusher: towline.Pusher, made: Made) -> str:
    """A repository that has the image, and is known to; the layer's digest."""
    pushed = pusher.push(made.path, f"{registry.host}/base:1")
    registry.asked.clear()
    return str(pushed.layers[0].digest)


ANSWERS: list[tuple[str, Reply | None]] = [
    ("202", None),
    ("202 without a place", Reply(202)),
    ("401", complaint(401, "UNAUTHORIZED")),
    ("403", complaint(403, "DENIED")),
    ("404", complaint(404, "NAME_UNKNOWN")),
    ("405", complaint(405, "UNSUPPORTED")),
    ("500", Reply(500)),
    ("cut", CUT),
]


@pytest.mark.parametrize(
    "answer", [reply for _, reply in ANSWERS], ids=[name for name, _ in ANSWERS]
)
def test_a_mount_that_fails_in_any_way_becomes_an_upload(
    answer: Reply | None, known: str, registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    if answer:
        registry.on("POST", "mount=", answer, forever=True)
    registry.on("HEAD", f"/app/blobs/{known}", complaint(404, "BLOB_UNKNOWN"), forever=True)
    result = pusher.push(made.path, f"{registry.host}/app:1")
    assert registry.requests("POST", "mount=")
    assert result.layers[0].outcome == "pushed"
    assert result.layers[0].digest == known
    assert len(registry.requests("PATCH", "/app/")) >= 1
    assert whole(registry)


def test_a_mount_that_succeeds_sends_nothing(
    known: str, registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    registry.on("POST", "mount=", Reply(201), forever=True)
    result = pusher.push(made.path, f"{registry.host}/app:1")
    assert result.layers[0].outcome == "mounted"
    assert result.layers[0].mounted_from == "base"
    assert not registry.requests("PATCH")


@pytest.mark.parametrize(
    ("answer", "remembered"),
    [(None, False), (complaint(401, "UNAUTHORIZED"), True), (complaint(403, "DENIED"), True),
     (Reply(500), True), (CUT, True)],
    ids=["202", "401", "403", "500", "cut"],
)  # fmt: skip
def test_only_an_opened_session_says_that_the_origin_has_not_got_it(  # noqa: PLR0917 - fixtures
    answer: Reply | None,
    remembered: bool,  # noqa: FBT001 - a column of the table
    known: str,
    registry: Scripted,
    pusher: towline.Pusher,
    made: Made,
) -> None:
    registry.on("POST", "/origin/.*mount=", Reply(201), forever=True)
    pusher.push(made.path, f"{registry.host}/origin:1")
    if answer:
        registry.on("POST", f"mount={known.replace(':', '.*')}", answer, forever=True)
    pusher.push(made.path, f"{registry.host}/app:1")
    assert ("origin" in holders(pusher, made)) == remembered


@pytest.mark.usefixtures("known")
def test_a_session_says_nothing_of_the_origin_where_no_mount_was_ever_seen(
    registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    pusher.push(made.path, f"{registry.host}/app:1")
    assert registry.requests("POST", "mount=")
    assert holders(pusher, made) == {"base", "app"}


def holders(pusher: towline.Pusher, made: Made) -> set[str]:
    """The repositories that are remembered to have the layer."""
    (diff_id,) = made.diff_ids
    entries = pusher._resources.knowledge.entries([diff_id])[diff_id]
    return {entry.repository.rpartition("/")[2] for entry in entries}


def test_of_several_sessions_the_last_serves_and_the_others_are_given_back(
    registry: Scripted, pusher: towline.Pusher, tmp_path: Path
) -> None:
    # Random enough to be above the size for which one mount is tried.
    made = make_image(tmp_path / "big.tar", [{"big": bytes(range(256)) * 2000}])
    for name in ("one", "two", "three"):
        registry.on("POST", f"/{name}/blobs/uploads/[?]mount=", Reply(405), forever=True)
        pusher.push(made.path, f"{registry.host}/{name}:1")
    registry.asked.clear()
    result = pusher.push(made.path, f"{registry.host}/app:1")
    layer = str(result.layers[0].digest).replace(":", ".*")
    assert len(registry.requests("POST", f"/app/.*mount={layer}")) == 3
    assert len(registry.requests("DELETE", "/app/blobs/uploads/")) >= 2
    assert not registry.requests("POST", "/app/blobs/uploads/$")
    assert whole(registry)


def test_a_mount_asks_for_the_scope_of_its_origin_too(
    registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    tokens = Tokens(registry)
    pusher.push(made.path, f"{registry.host}/base:1")
    pusher.push(made.path, f"{registry.host}/app:1")
    asked = [set(scopes_of(one)) for one in tokens.asked]
    assert {"repository:app:pull,push", "repository:base:pull"} in asked


# Blobs of every kind.


def test_foreign_layers_are_skipped_and_keep_their_urls(
    registry: Scripted, pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "layout", [*LAYER, {"windows": b"w\n"}], format="oci")
    urls = ["https://example.test/layer"]
    digest = _with_foreign_base(made.path, urls)
    told: list[str] = []

    def hear(event: towline.Event) -> None:
        if isinstance(event, towline.LayerProgress):
            told.append(event.status)

    with towline.Pusher(cache="none", on_event=hear) as own:
        result = own.push(made.path, f"{registry.host}/app:1")
    assert result.digest == digest
    assert [layer.outcome for layer in result.layers] == ["skipped", "pushed"]
    pushed = json.loads(registry.manifests["1"][1])
    assert pushed["layers"][0]["urls"] == urls
    assert not registry.requests("", pushed["layers"][0]["digest"])
    assert "Skipped foreign layer" in told
    assert whole(registry)


@pytest.mark.parametrize("status", [500, 400])
def test_a_registry_that_takes_no_foreign_layers_is_not_asked_again_and_again(
    status: int, registry: Scripted, pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "layout", [{"base": b"base"}, *LAYER], format="oci")
    _with_foreign_base(made.path, ["https://elsewhere.example/layer"])

    def refuses(asked: Asked) -> Reply:
        """In the words of distribution 2.8, unless it was told which addresses are good."""
        foreign = next(one for one in json.loads(asked.body)["layers"] if "urls" in one)
        errors = [
            {"code": "UNKNOWN", "message": "unknown error", "detail": {}},
            {"code": "MANIFEST_BLOB_UNKNOWN", "detail": {"digest": foreign["digest"]}},
        ]
        return Reply(status, (), json.dumps({"errors": errors}))

    registry.on("PUT", "/manifests/", refuses, forever=True)
    with pytest.raises(towline.RegistryError, match="MANIFEST_BLOB_UNKNOWN") as caught:
        pusher.push(made.path, f"{registry.host}/app:1")
    assert "takes no layers that lie elsewhere" in str(caught.value.hint)
    assert len(registry.requests("PUT", "/manifests/")) == 1


def _with_foreign_base(layout: Path, urls: list[str]) -> str:
    """Make the lowest layer of a layout a foreign one; the manifest's new digest."""
    index = json.loads((layout / "index.json").read_bytes())
    blobs = layout / "blobs/sha256"
    (listed,) = index["manifests"]
    manifest = json.loads((blobs / listed["digest"].partition(":")[2]).read_bytes())
    base = manifest["layers"][0]
    base["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    base["urls"] = urls
    (blobs / base["digest"].partition(":")[2]).unlink()
    content = json.dumps(manifest).encode()
    listed["digest"], listed["size"] = Digest.of(content), len(content)
    (blobs / listed["digest"].partition(":")[2]).write_bytes(content)
    (layout / "index.json").write_text(json.dumps(index))
    return str(listed["digest"])


@pytest.mark.parametrize("layers", [[], [{}], [{}, {"f": b"x"}, {}]], ids=["none", "one", "some"])
@pytest.mark.parametrize("form", ["docker", "oci"])
def test_images_of_empty_layers_and_of_none_are_pushed(
    layers: list[dict[str, bytes]], form: Any, registry: Scripted, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image", layers, format=form)
    with towline.Pusher(cache="none") as pusher:
        result = pusher.push(made.path, f"{registry.host}/app:1")
    assert [layer.diff_id for layer in result.layers] == list(made.diff_ids)
    assert whole(registry)
    blobs = {layer.digest for layer in result.layers}
    assert len(registry.requests("PUT", "digest=")) == len(blobs) + 1


def test_a_config_that_is_there_is_not_sent(
    registry: Scripted, pusher: towline.Pusher, made: Made
) -> None:
    pusher.push(made.path, f"{registry.host}/app:1")
    registry.asked.clear()
    pusher.push(made.path, f"{registry.host}/app:2")
    assert not registry.requests("P", "/blobs/")
    config = Digest.of(made.config).replace(":", ".*")
    assert len(registry.requests("HEAD", config)) == 1


def test_a_session_that_holds_bytes_goes_on_where_it_was_cut(
    registry: Scripted, tmp_path: Path
) -> None:
    noise = bytes(range(256)) * 4096
    made = make_image(tmp_path / "layout", [{"f": noise}], format="oci", compression="none")

    def cut(asked: Asked) -> Reply:
        session = asked.path.rpartition("/")[2]
        registry.sessions[session] += asked.body[: len(asked.body) // 2]
        return CUT

    registry.on("PATCH", "/uploads/", cut)
    with towline.Pusher(cache="none") as pusher:
        result = pusher.push(made.path, f"{registry.host}/app:1", compression="gzip")
    assert whole(registry)
    assert result.layers[0].outcome == "resumed"
