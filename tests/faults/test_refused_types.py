"""A registry refuses the type of a manifest: what is tried instead, and what is said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import choosy
from tests.support.choosy import DOCKER, OCI
from tests.support.scripted import CUT, Reply, Scripted, complaint, scripted
from tests.support.sources import docker_archive, member, tar_of
from towline.errors import AuthError, NetworkError, PartialFailure, RegistryError
from towline.spec import media_types
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from tests.support.scripted import Asked

FACES = [
    complaint(400, "UNSUPPORTED"),
    complaint(405, "UNSUPPORTED", "The operation is unsupported."),
    complaint(400, "MANIFEST_INVALID", "manifest invalid"),
    complaint(400, "TAG_INVALID", "manifest tag did not match URI"),
    complaint(415, "MANIFEST_INVALID", "manifest schema version not supported"),
    Reply(415),
    complaint(501, "UNSUPPORTED", "schema version"),
    Reply(404, {"Content-Type": "text/html"}, "<html>Not found</html>"),
]
OTHERS = [
    complaint(400, "DIGEST_INVALID"),
    complaint(400, "SIZE_INVALID"),
    complaint(400, "TAG_INVALID", "tag 1 already exists and is immutable"),
    complaint(409, "TAG_IMMUTABLE", "immutable"),
    complaint(412, "PRECONDITION", "configured as immutable"),
    complaint(404, "NAME_UNKNOWN"),
]
SCHEMA1 = frozenset({media_types.SCHEMA1_SIGNED})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_image(tmp_path / "image.tar", [{"a": b"a"}]).path


@pytest.fixture
def oci(tmp_path: Path) -> Path:
    return make_image(tmp_path / "layout", [{"a": b"a"}], format="oci").path


def push(source: object, destination: object, **options: Any) -> Any:
    options = {"plain_http": True, "retries": 0, "cache": "none", "no_learn": True, **options}
    return towline.push(source, destination, **options)  # type: ignore[call-overload]  # of any kind


def name(registry: Scripted) -> str:
    return f"{registry.host}/team/app:1"


def put_types(registry: Scripted) -> list[str | None]:
    return [asked.header("Content-Type") for asked in registry.requests("PUT", "/manifests/")]


def failed(source: Path, registry: Scripted, **options: Any) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        push(source, name(registry), **options)
    return caught.value


@pytest.mark.parametrize("refusal", FACES)
@pytest.mark.parametrize("taken", ["docker", "oci"])
def test_whatever_face_the_refusal_has_the_other_family_is_tried(
    registry: Scripted, tmp_path: Path, refusal: Reply, taken: str
) -> None:
    form: Any = "oci" if taken == "docker" else "docker-legacy"
    made = make_image(tmp_path / "image", [{"a": b"a"}], format=form)
    choosy.refuse(registry, OCI if taken == "docker" else DOCKER, refusal)
    result = push(made.path, name(registry))
    assert put_types(registry) == (
        [media_types.OCI_MANIFEST, media_types.DOCKER_MANIFEST]
        if taken == "docker"
        else [media_types.DOCKER_MANIFEST, media_types.OCI_MANIFEST]
    )
    media_type, content = registry.manifests["1"]
    assert (result.digest, result.media_type) == (Digest.of(content), media_type)
    assert json.loads(content)["mediaType"] == media_type
    assert result.digest_differs == "converted"
    assert str(refusal.status) in result.warnings[0]


@pytest.mark.parametrize("refusal", OTHERS)
def test_other_refusals_are_never_answered_with_a_conversion(
    registry: Scripted, source: Path, refusal: Reply
) -> None:
    choosy.refuse(registry, DOCKER, refusal)
    assert failed(source, registry, allow_schema1=True).status == refusal.status
    assert put_types(registry) == [media_types.DOCKER_MANIFEST]


def test_a_denial_is_never_answered_with_a_conversion(registry: Scripted, source: Path) -> None:
    choosy.refuse(registry, DOCKER, complaint(403, "DENIED"))
    with pytest.raises(AuthError):
        push(source, name(registry), allow_schema1=True)
    assert set(put_types(registry)) == {media_types.DOCKER_MANIFEST}


@pytest.mark.parametrize("fmt", ["docker", "oci"])
def test_an_explicit_format_is_never_converted(registry: Scripted, source: Path, fmt: str) -> None:
    choosy.refuse(registry, DOCKER | OCI)
    error = failed(source, registry, format=fmt, allow_schema1=True)
    assert (error.status, error.code) == (415, "MANIFEST_INVALID")
    assert error.hint == f"leave out `format='{fmt}'`: then the manifest may be converted"
    assert len(put_types(registry)) == 1


def test_for_several_registries_nothing_is_converted(registry: Scripted, source: Path) -> None:
    choosy.refuse(registry, DOCKER)
    with scripted() as other:
        with pytest.raises(PartialFailure) as caught:
            push(source, [name(registry), name(other)], allow_schema1=True)
        assert put_types(other) == [media_types.DOCKER_MANIFEST]
    error, _ = caught.value.results
    assert isinstance(error, RegistryError)
    assert error.hint == f"push to {registry.host} by itself: then the manifest may be converted"
    assert put_types(registry) == [media_types.DOCKER_MANIFEST]


def test_two_repositories_of_one_registry_get_the_same_in_another_form(
    registry: Scripted, source: Path
) -> None:
    choosy.refuse(registry, DOCKER)
    one, two = push(source, [name(registry), f"{registry.host}/other:1"])
    assert one.digest == two.digest
    assert {one.digest_differs, two.digest_differs} == {"converted"}
    assert all(len(result.warnings) == 1 for result in (one, two))


def test_each_of_several_tags_is_converted_and_warned_of_once(
    registry: Scripted, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", [{"a": b"a"}], names=["app:1", "app:2"])
    choosy.refuse(registry, DOCKER)
    results = push(made.path, f"{registry.host}/app", all_tags=True)
    assert {result.digest_differs for result in results} == {"converted"}
    assert len(results[-1].warnings) == 1
    assert {"1", "2"} <= set(registry.manifests)


def test_when_both_are_refused_both_are_told_and_schema_1_is_hinted_at(
    registry: Scripted, source: Path
) -> None:
    def refuse(asked: Asked) -> Reply:
        if asked.header("Content-Type") in OCI:
            return complaint(400, "TAG_INVALID", "no such media type")
        return complaint(415, "MANIFEST_INVALID", "too new")

    registry.on("PUT", "/manifests/", refuse, forever=True)
    error = failed(source, registry)
    assert (error.status, error.code) == (415, "MANIFEST_INVALID")
    first, _, second = str(error).partition("; converted to OCI's format: ")
    assert first.startswith(f"cannot put the manifest of {name(registry)}: ")
    assert "415 Whatever: MANIFEST_INVALID: too new" in first
    assert second.startswith(f"{registry.host} answered 400")
    assert "TAG_INVALID: no such media type" in second
    assert "`allow_schema1=True`" in str(error.hint)


def test_two_equal_refusals_are_told_in_short(registry: Scripted, source: Path) -> None:
    choosy.refuse(registry, DOCKER | OCI)
    assert str(failed(source, registry)).endswith("; converted to OCI's format: the same")


def test_when_schema_1_is_refused_too_all_is_told(registry: Scripted, source: Path) -> None:
    choosy.refuse(registry, DOCKER | OCI | SCHEMA1)
    error = failed(source, registry, allow_schema1=True)
    assert "; converted to OCI's format: the same" in str(error)
    assert "; converted to signed schema 1: the same" in str(error)
    assert error.hint is None
    assert put_types(registry)[-1] == media_types.SCHEMA1_SIGNED


def test_schema_1_is_not_tried_unless_allowed(registry: Scripted, source: Path) -> None:
    choosy.refuse(registry, DOCKER | OCI)
    failed(source, registry)
    assert put_types(registry) == [media_types.DOCKER_MANIFEST, media_types.OCI_MANIFEST]


def test_another_error_than_a_refusal_ends_the_trying_and_keeps_its_class(
    registry: Scripted, source: Path
) -> None:
    def refuse(asked: Asked) -> Reply:
        return CUT if asked.header("Content-Type") in OCI else choosy.REFUSAL

    registry.on("PUT", "/manifests/", refuse, forever=True)
    with pytest.raises(NetworkError) as caught:
        push(source, name(registry), allow_schema1=True)
    assert "MANIFEST_INVALID" in str(caught.value)
    assert "; converted to OCI's format: " in str(caught.value)
    assert media_types.SCHEMA1_SIGNED not in put_types(registry)


def test_blobs_that_a_converted_manifest_lacks_are_sent_again(
    registry: Scripted, source: Path
) -> None:
    lost: list[str] = []

    def answer(asked: Asked) -> Reply | None:
        if asked.header("Content-Type") in DOCKER:
            return choosy.REFUSAL
        if not lost:
            lost.append(next(iter(registry.blobs)))
            del registry.blobs[lost[0]]
            return complaint(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown", lost[0])
        return None

    registry.on("PUT", "/manifests/", answer, forever=True)
    result = push(source, name(registry))
    assert lost[0] in registry.blobs
    assert result.digest_differs == "converted"
    assert len(result.warnings) == 1


# What has no other form


def test_zstd_layers_cannot_become_schema_2(registry: Scripted, source: Path) -> None:
    choosy.refuse(registry, OCI)
    error = failed(source, registry, compression="zstd", allow_schema1=True)
    assert "zstd, which schema 2 cannot hold" in str(error)
    assert "signed schema 1 takes gzip layers alone" in str(error)
    assert error.hint == "push with `compression='gzip'`"
    assert put_types(registry) == [media_types.OCI_MANIFEST]


def test_layers_that_came_as_zstd_are_told_without_a_hint(
    registry: Scripted, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image", [{"a": b"a"}], format="oci", compression="zstd")
    choosy.refuse(registry, OCI)
    error = failed(made.path, registry)
    assert "zstd, which schema 2 cannot hold" in str(error)
    assert error.hint is None


def test_plain_layers_become_anything_but_schema_1(registry: Scripted, source: Path) -> None:
    choosy.refuse(registry, DOCKER | OCI)
    error = failed(source, registry, compression="none", allow_schema1=True)
    assert "converted to OCI's format: the same" in str(error)
    assert "signed schema 1 takes gzip layers alone" in str(error)
    assert error.hint == "push with `compression='gzip'`"


def test_an_index_has_no_schema_1(registry: Scripted, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image", [{"a": b"a"}], ["linux/amd64", "linux/arm64"], "oci")
    choosy.refuse(registry, DOCKER | OCI)
    assert failed(made.path, registry).hint is None
    error = failed(made.path, registry, allow_schema1=True)
    assert "signed schema 1 has no form for an index" in str(error)


def test_an_attestation_has_no_schema_2(registry: Scripted, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image", [{"a": b"a"}], ["linux/amd64"], "oci", attestations=True)
    choosy.refuse(registry, OCI)
    error = failed(made.path, registry)
    assert "a blob of the type application/vnd.in-toto+json, which has no other form" in str(error)


def test_a_config_without_a_history_has_no_schema_1(registry: Scripted, tmp_path: Path) -> None:
    source = docker_archive(tmp_path / "image.tar", {"a.tar": tar_of(member("a", b"a"))})
    choosy.refuse(registry, DOCKER | OCI)
    assert failed(source, registry).hint is None
    error = failed(source, registry, allow_schema1=True)
    assert "its config does not fit into signed schema 1 (empty history" in str(error)


def mixed(folder: Path) -> Path:
    """An OCI index of a docker image, as some builders make them."""
    made = make_image(folder / "layout", [{"a": b"a"}], ["linux/amd64"], "oci")
    index = json.loads(made.root.content)
    child = made.images[0].manifest
    content = child.content.replace(
        media_types.OCI_MANIFEST.encode(), media_types.DOCKER_MANIFEST.encode()
    )
    blobs = made.path / "blobs" / "sha256"
    digest = Digest.of(content)
    (blobs / digest.hex).write_bytes(content)
    listed = {"mediaType": media_types.DOCKER_MANIFEST, "digest": digest, "size": len(content)}
    index["manifests"][0] |= listed
    whole = json.dumps(index).encode()
    (blobs / Digest.of(whole).hex).write_bytes(whole)
    root = {"mediaType": media_types.OCI_INDEX, "digest": Digest.of(whole), "size": len(whole)}
    top = json.loads((made.path / "index.json").read_bytes())
    top["manifests"] = [root]
    (made.path / "index.json").write_text(json.dumps(top))
    return made.path


def test_of_an_index_the_child_that_is_refused_is_converted(
    registry: Scripted, tmp_path: Path
) -> None:
    choosy.refuse(registry, DOCKER)
    result = push(mixed(tmp_path), name(registry))
    assert result.media_type == media_types.OCI_INDEX
    assert [child.media_type for child in result.manifests] == [media_types.OCI_MANIFEST]
    assert result.digest_differs == "converted"
    types: Collection[str | None] = put_types(registry)
    assert list(types) == [
        media_types.DOCKER_MANIFEST,
        media_types.OCI_MANIFEST,
        media_types.OCI_INDEX,
    ]


# What was converted before


def pusher(tmp_path: Path) -> towline.Pusher:
    """With the memory of those before it."""
    return towline.Pusher(plain_http=True, retries=0, cache=tmp_path / "cache.sqlite")


@pytest.mark.parametrize("rule", ["overwrite", "same"])
def test_what_is_there_in_another_form_is_not_converted_again(
    registry: Scripted, source: Path, tmp_path: Path, rule: Any
) -> None:
    choosy.refuse(registry, DOCKER)
    with pusher(tmp_path) as first:
        converted = first.push(source, name(registry), if_exists=rule)
    before = len(registry.asked)
    with pusher(tmp_path) as second:
        again = second.push(source, name(registry), if_exists=rule)
    assert (again.status, again.digest) == ("unchanged", converted.digest)
    assert again.digest_differs == "converted"
    assert "refused docker's format" in again.warnings[0]
    assert {asked.method for asked in registry.asked[before:]} == {"HEAD", "GET"} - (
        {"GET"} if rule == "overwrite" else set()
    )
    assert len(registry.asked) - before <= 3


def test_another_image_is_tried_as_it_is_first(
    registry: Scripted, source: Path, tmp_path: Path
) -> None:
    choosy.refuse(registry, DOCKER)
    with pusher(tmp_path) as first:
        first.push(source, name(registry))
    other = make_image(tmp_path / "other.tar", [{"b": b"b"}]).path
    registry.forget("PUT")
    with pusher(tmp_path) as second:
        result = second.push(other, name(registry))
        assert result.media_type == media_types.DOCKER_MANIFEST
        assert (result.digest_differs, result.warnings) == (None, ())
        # It takes them now: what it holds in another form is no longer the same.
        second.push(source, f"{registry.host}/team/app:2", format="oci")
        again = second.push(source, f"{registry.host}/team/app:2")
    assert again.media_type == media_types.DOCKER_MANIFEST
    assert again.status == "pushed"


def test_a_form_that_was_never_refused_is_another_image(
    registry: Scripted, source: Path, tmp_path: Path
) -> None:
    with pusher(tmp_path) as one:
        one.push(source, name(registry), format="oci")
        with pytest.raises(RegistryError, match="holds another image"):
            one.push(source, name(registry), if_exists="same")


def test_what_is_remembered_converts_nothing_that_may_not_be_converted(
    registry: Scripted, source: Path, tmp_path: Path
) -> None:
    choosy.refuse(registry, DOCKER)
    with pusher(tmp_path) as one:
        one.push(source, name(registry))
        with pytest.raises(RegistryError) as caught:
            one.push(source, name(registry), format="docker")
        assert "leave out `format=" in str(caught.value.hint)
        other = one.push(source, name(registry), compression="none", allow_schema1=True)
    assert other.status == "pushed"
    assert other.media_type == media_types.OCI_MANIFEST
