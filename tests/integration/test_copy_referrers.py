"""Signatures and the like: taken along with what they refer to, or counted."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import components, readback
from tests.support.subjects import signature
from towline.cli.main import main
from towline.server import Server
from towline.spec.digest import Digest
from towline.spec.distribution import cosign_tags, is_list, subject_of, tag_of
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Place

BOTH = ["linux/amd64", "linux/arm64"]
REFERRER = "io.containerd.manifest.subject"


class Source:
    """A registry with an index; it, and an image of it, are signed; one has a cosign tag too."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.host = server.url.partition("//")[2]
        made = make_image(folder / "index", [{"a": b"b"}], BOTH, "oci", attestations=True)
        with towline.Pusher(cache="none") as pusher:
            pushed = pusher.push(made.path, f"{self.host}/app:1")
            self.index = Digest(pushed.digest)
            self.child = Digest(pushed.manifests[0].digest)
            self.signatures = [
                self.sign(pusher, folder / f"signature{n}", subject)
                for n, subject in enumerate([self.index, self.child])
            ]
            # What refers to a signature comes along too.
            of_it = self.sign(pusher, folder / "of-it", Digest(self.signatures[0]))
            self.signatures.append(of_it)
            old = make_image(folder / "old", [{"sig": b"nature"}], format="oci")
            self.tag = cosign_tags(self.index)[0]
            self.tagged = pusher.push(old.path, f"{self.host}/app:{self.tag}").digest

    def sign(self, pusher: towline.Pusher, layout: Path, subject: Digest) -> str:
        """Put an artifact that refers to a manifest; its digest."""
        signature(layout, subject, 1)
        return pusher.push(layout, f"{self.host}/app", by_digest=True).digest


def copied(source: str, destination: str, **options: Any) -> towline.PushResult:
    result = towline.copy(source, destination, **options)
    assert isinstance(result, towline.PushResult)
    return result


def listed(url: str, path: str, subject: str) -> list[dict[str, Any]]:
    """What a registry, or the tag in its place, lists as referring to a manifest."""
    for where in (f"referrers/{subject}", f"manifests/{tag_of(Digest(subject))}"):
        try:
            content, _ = readback.fetch(f"{url}/v2/{path}/{where}")
        except OSError:
            continue
        found: list[dict[str, Any]] = json.loads(content)["manifests"]
        return found
    return []


def writes(registry: Place) -> list[str]:
    """Paths of all requests that write."""
    return [path for method, path in registry.requests() if method in {"PUT", "POST", "PATCH"}]


@pytest.fixture(params=[True, False], ids=["api", "tag"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    with Server(referrers=request.param) as server:
        yield Source(server, tmp_path)


def test_tags_are_named_after_what_they_speak_of() -> None:
    subject = Digest.of(b"it")
    for tag in (tag_of(subject), *cosign_tags(subject)):
        assert subject_of(tag) == subject
    assert is_list(tag_of(subject))
    assert not is_list(cosign_tags(subject)[0])
    assert subject_of("sha256-abc") is subject_of("latest") is None


def test_what_refers_to_an_index_and_to_its_images_goes_along(
    source: Source, registry: Place
) -> None:
    name = f"{registry.name('app')}:1"
    result = copied(f"{source.host}/app:1", name, referrers=True)
    assert (result.digest, result.status) == (source.index, "pushed")
    found = [
        each
        for subject in (source.index, source.child, source.signatures[0])
        for each in listed(registry.url, registry.path("app"), subject)
    ]
    assert {each["digest"] for each in found} == set(source.signatures)
    assert {each["artifactType"] for each in found} == {"application/vnd.example.signature"}
    assert towline.digest(f"{registry.name('app')}:{source.tag}") == source.tagged
    order = [path.rpartition("/")[2] for path in writes(registry) if "/manifests/" in path]
    subjects = ["1", source.child, source.signatures[0]]
    for subject, one in zip(subjects, source.signatures, strict=True):
        assert order.index(subject) < order.index(one)
    before = len(writes(registry))
    again = copied(f"{source.host}/app:1", name, referrers=True)
    assert again.status == "unchanged"
    assert len(writes(registry)) == before


def test_their_bytes_count_as_sent_as_to_be_sent_and_in_a_plan(source: Source) -> None:
    told: list[towline.Event] = []
    with Server() as other:
        words = (f"docker://{source.host}/app:1", f"{other.url.partition('//')[2]}/app:1")
        planned = towline.plan(*words, referrers=True)
        copied(*words, referrers=True, on_event=told.append)
    (summary,) = [each for each in told if isinstance(each, towline.Summary)]
    # Nothing was there, so that all of it was sent, each blob once.
    assert summary.sent_bytes == summary.total_bytes == planned.send_bytes


def test_a_signature_that_is_new_is_copied_to_an_image_that_is_there(
    source: Source, registry: Place
) -> None:
    name = f"{registry.name('app')}:1"
    copied(f"{source.host}/app:1", name)
    result = copied(f"{source.host}/app:1", name, referrers=True)
    assert result.status == "unchanged"
    (one,) = listed(registry.url, registry.path("app"), source.child)
    assert one["digest"] == source.signatures[1]


def test_what_the_destination_lists_stays_listed(source: Source, tmp_path: Path) -> None:
    with Server(referrers=False) as other:
        host = other.url.partition("//")[2]
        own = tmp_path / "own"
        signature(own, source.index, 2)
        mine = towline.push(own, f"{host}/app", by_digest=True, cache="none")
        assert isinstance(mine, towline.PushResult)
        copied(f"{source.host}/app:1", f"{host}/app:1", referrers=True)
        found = {each["digest"] for each in listed(other.url, "app", source.index)}
    assert found == {mine.digest, source.signatures[0]}


def test_two_copies_at_once_lose_nothing_of_the_list(source: Source, tmp_path: Path) -> None:
    with Server(referrers=False) as other, Server() as second:
        host, theirs = other.url.partition("//")[2], second.url.partition("//")[2]
        towline.copy(f"{source.host}/app:1", f"{theirs}/app:1")
        signature(tmp_path / "second", source.index, 3)
        more = towline.push(tmp_path / "second", f"{theirs}/app", by_digest=True, cache="none")
        assert isinstance(more, towline.PushResult)
        threads = [
            threading.Thread(
                target=towline.copy,
                args=(f"{one}/app:1", f"{host}/app:1"),
                kwargs={"referrers": True, "cache": "none"},
            )
            for one in (source.host, theirs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = {each["digest"] for each in listed(other.url, "app", source.index)}
    assert found == {more.digest, source.signatures[0]}


def test_without_the_option_a_line_says_how_many_were_left_behind(
    source: Source, registry: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{registry.name('app')}:1"
    assert main(["copy", f"{source.host}/app:1", name]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "left behind" in line]
    assert told == [
        (
            "towline: note: 4 that refer to it, such as a signature, were left behind: "
            "`--referrers` takes them along"
        )
    ]
    assert main(["copy", f"{source.host}/app:1", name]) == 0
    assert "left behind" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_they_go_through_a_layout_and_an_archive(
    source: Source, registry: Place, tmp_path: Path, kind: str
) -> None:
    to = f"{kind}:{tmp_path}/out"
    copied(f"{source.host}/app:1", f"{to}:1", referrers=True)
    told: list[towline.Event] = []
    with towline.Pusher(on_event=told.append) as pusher:
        pusher.push(f"{to}:1", f"{registry.name('other')}:1")
        assert [each for each in told if "4 that refer" in getattr(each, "message", "")]
        before = len(registry.asked())
        pushed = pusher.push(to, f"{registry.name('app')}:1", referrers=True)
    assert pushed.requests == len(registry.asked()) - before
    (one,) = listed(registry.url, registry.path("app"), source.index)
    assert one["digest"] == source.signatures[0]
    assert towline.digest(f"{registry.name('app')}:{source.tag}") == source.tagged


def test_all_tags_take_the_lists_as_lists(source: Source, tmp_path: Path) -> None:
    with Server(referrers=False) as other:
        host = other.url.partition("//")[2]
        results = towline.copy(f"{source.host}/app", f"{host}/app", all_tags=True, referrers=True)
        assert [result.tag for result in results] == ["1", source.tag]
        assert len(listed(other.url, "app", source.index)) == 1


def test_what_has_another_digest_there_does_not_get_them(source: Source, registry: Place) -> None:
    name = f"{registry.name('app')}:1"
    result = copied(f"{source.host}/app:1", name, referrers=True, platform=BOTH[0])
    assert result.digest_differs == "platforms"
    assert listed(registry.url, registry.path("app"), source.index) == []
    assert len(listed(registry.url, registry.path("app"), source.child)) == 1
    for options in ({"platform": BOTH[0]}, {"platform": BOTH[1:]}, {"annotation": {"a": "b"}}):
        name = f"{registry.name(f'to-{len(str(options))}')}:1"
        result = copied(f"{source.host}/app:1", name, referrers=True, **options)
        told = f"what refers to {source.index} is left out: it has another digest"
        assert result.warnings.count(told) == 1


def test_one_that_fails_is_the_failure_of_what_it_refers_to(source: Source) -> None:
    with Server() as other:
        host = other.url.partition("//")[2]
        other.faults.fail("PUT", f"/v2/app/manifests/{source.signatures[1]}", 403, times=99)
        with pytest.raises(towline.AuthError, match="app:1 is in place, but not") as caught:
            copied(f"{source.host}/app:1", f"{host}/app:1", referrers=True)
        assert source.signatures[1] in caught.value.message
        assert towline.digest(f"{host}/app:1") == source.index


@pytest.mark.peer("cosign")
@pytest.mark.parametrize("there", [True, False], ids=["to-api", "to-tag"])
@pytest.mark.parametrize("bundle", [True, False], ids=["bundle", "legacy"])
def test_cosign_verifies_what_was_copied(
    source: Source, tmp_path: Path, *, there: bool, bundle: bool
) -> None:
    environ = {**os.environ, "COSIGN_PASSWORD": "", "HOME": str(tmp_path)}
    form = f"--new-bundle-format={str(bundle).lower()}"

    def cosign(*words: str) -> None:
        command = [str(components.find("cosign")), *words]
        subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=True)

    cosign("generate-key-pair")
    signed = f"{source.host}/app@{source.index}"
    local = ["--tlog-upload=false", "--use-signing-config=false", "--yes"]
    cosign("sign", "--key", "cosign.key", *local, form, "--recursive", signed)
    with Server(referrers=there) as other:
        host = other.url.partition("//")[2]
        copied(f"{source.host}/app:1", f"{host}/app:1", referrers=True)
        for digest in (source.index, source.child):
            name = f"{host}/app@{digest}"
            cosign("verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", form, name)
