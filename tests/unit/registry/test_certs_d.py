"""The folders of certificates that Docker and Podman keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from towline.errors import UsageError
from towline.registry.endpoints import trust_of
from towline.wire.tls import Trust

HOST = "reg.example:5000"


def folder(home: Path, tool: str = "containers", host: str = HOST) -> Path:
    made = home / ".config" / tool / "certs.d" / host
    made.mkdir(parents=True)
    return made


def test_authorities_are_added_to_those_given(tmp_path: Path) -> None:
    made = folder(tmp_path)
    for name in ("b.crt", "a.crt", "notes.txt"):
        (made / name).touch()
    given = Trust(authorities=(Path("/given"),))
    trust = trust_of(HOST, given, {"HOME": str(tmp_path)})
    assert trust.authorities == (Path("/given"), made / "a.crt", made / "b.crt")
    assert trust.certificate is None


def test_a_clients_pair_is_used_unless_one_is_given(tmp_path: Path) -> None:
    made = folder(tmp_path, "docker")
    (made / "me.cert").touch()
    (made / "me.key").touch()
    trust = trust_of(HOST, Trust(), {"HOME": str(tmp_path)})
    assert (trust.certificate, trust.key) == (made / "me.cert", made / "me.key")
    given = Trust(certificate=Path("/c"), key=Path("/k"))
    assert trust_of(HOST, given, {"HOME": str(tmp_path)}) == given


def test_a_certificate_without_a_key_is_a_usage_error(tmp_path: Path) -> None:
    (folder(tmp_path) / "me.cert").touch()
    with pytest.raises(UsageError, match=r"me\.cert has no me\.key"):
        trust_of(HOST, Trust(), {"HOME": str(tmp_path)})


@pytest.mark.parametrize("host", ["reg.example", "reg.example:5001", "docker.io"])
def test_other_hosts_and_the_hub_get_nothing_of_it(tmp_path: Path, host: str) -> None:
    (folder(tmp_path) / "a.crt").touch()
    (folder(tmp_path, host="docker.io") / "a.crt").touch()
    assert trust_of(host, Trust(), {"HOME": str(tmp_path)}) == Trust()


def test_the_first_folder_that_exists_counts(tmp_path: Path) -> None:
    first = folder(tmp_path / "x", host=HOST)
    (first / "a.crt").touch()
    (folder(tmp_path / "x", "docker") / "b.crt").touch()
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "x/.config"), "HOME": "/nowhere"}
    assert trust_of(HOST, Trust(), environ).authorities == (first / "a.crt",)


def test_a_folder_that_cannot_be_looked_for_is_none() -> None:
    assert trust_of(HOST, Trust(), {"XDG_CONFIG_HOME": f"/{'x' * 300}"}) == Trust()
