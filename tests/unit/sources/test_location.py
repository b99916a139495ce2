from __future__ import annotations

import pytest

from towline.errors import UsageError
from towline.sources.location import Location, Transport, parse


@pytest.mark.parametrize(
    ("text", "transport", "path", "ref"),
    [
        ("image.tar", None, "image.tar", None),
        ("./oci:x", None, "./oci:x", None),
        ("docker:x", None, "docker:x", None),
        ("ubuntu:24.04", None, "ubuntu:24.04", None),
        ("docker-archive:image.tar", "docker-archive", "image.tar", None),
        ("docker-archive:image.tar:app:1", "docker-archive", "image.tar", "app:1"),
        ("docker-archive:a.tar:reg:5000/app:1", "docker-archive", "a.tar", "reg:5000/app:1"),
        ("docker-archive:image.tar:@1", "docker-archive", "image.tar", "@1"),
        ("oci:dir", "oci", "dir", None),
        ("oci:dir:", "oci", "dir", None),
        ("oci:/some/dir:v1", "oci", "/some/dir", "v1"),
        ("oci-archive:x.tar:v1", "oci-archive", "x.tar", "v1"),
        ("docker-daemon:app:1", "docker-daemon", "app:1", None),
        ("docker://reg:5000/app:1", "docker", "reg:5000/app:1", None),
    ],
)
def test_a_source_is_read_as_skopeos_users_know_it(
    text: str, transport: Transport | None, path: str, ref: str | None
) -> None:
    assert parse(text) == Location(text, transport, path, ref)


@pytest.mark.parametrize("text", ["-", "docker-archive:-", "oci-archive:-:app:1"])
def test_a_dash_is_standard_input(text: str) -> None:
    assert parse(text).standard_input


@pytest.mark.parametrize("text", ["docker-daemon:-", "./-", "image.tar"])
def test_nothing_else_is_standard_input(text: str) -> None:
    assert not parse(text).standard_input


@pytest.mark.parametrize(
    "text", ["", "docker-archive:", "oci::v1", "oci-archive:", "docker-daemon:", "docker://"]
)
def test_a_transport_without_anything_after_it_is_a_wrong_use(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.hint
