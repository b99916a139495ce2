"""Servers that want a client's certificate, and keys that cannot be used for one."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.certificates import make_authority
from tests.support.pushing import client_of
from tests.support.scripted import Reply, Scripted, scripted
from towline.errors import NetworkError, RegistryError
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.certificates import Authority, Certificate
    from tests.support.pushing import Client

DIGEST = Digest.of(b"x")
PASSPHRASE = b"s3cret-word"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "authority"
    folder.mkdir()
    return make_authority(folder)


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def strict(authority: Authority, request: pytest.FixtureRequest) -> Iterator[Scripted]:
    """A registry that lets in whoever has a certificate of the authority."""
    with scripted(authority.issue()) as server:
        assert server._tls is not None
        server._tls.load_verify_locations(authority.ca)
        server._tls.verify_mode = ssl.CERT_REQUIRED
        server._tls.minimum_version = server._tls.maximum_version = ssl.TLSVersion[request.param]
        yield server


def ask(client: Client) -> bool:
    return client.repository.has_blob(DIGEST, client.context)


def test_a_client_without_one_is_told_which_option_gives_it(
    strict: Scripted, authority: Authority
) -> None:
    for _ in range(5):  # its reason comes while the request is sent, or after that
        with (
            client_of(strict, plain_http=False, ca=authority.ca) as client,
            pytest.raises(NetworkError) as caught,
        ):
            ask(client)
        assert "`cert`" in str(caught.value.hint)
        assert not caught.value.transient


def test_a_client_with_a_strangers_is_told_so(
    strict: Scripted, authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "stranger"
    folder.mkdir()
    other = make_authority(folder, "a stranger").issue("other")
    for _ in range(5):
        with (
            client_of(
                strict, plain_http=False, ca=authority.ca, cert=other.cert, key=other.key
            ) as client,
            pytest.raises(NetworkError, match="wants a client's certificate that it knows") as told,
        ):
            ask(client)
        assert "`cert`" in str(told.value.hint)


@pytest.mark.parametrize(
    "title", ["400 No required SSL certificate was sent", "400 The SSL certificate error"]
)
def test_nginx_says_it_in_a_page(registry: Scripted, client: Client, title: str) -> None:
    page = f"<html><head><title>{title}</title></head></html>"
    registry.on("POST", "", Reply(400, {"Content-Type": "text/html"}, page), forever=True)
    with pytest.raises(RegistryError) as caught:
        client.push(b"x")
    assert "`cert`" in str(caught.value.hint)


@pytest.fixture(
    params=[
        serialization.PrivateFormat.PKCS8,
        serialization.PrivateFormat.TraditionalOpenSSL,
    ],
    ids=["PKCS8", "traditional"],
)
def locked(authority: Authority, request: pytest.FixtureRequest) -> Certificate:
    """A client's certificate whose key has a passphrase."""
    pair = authority.issue("me")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            request.param,
            serialization.BestAvailableEncryption(PASSPHRASE),
        )
    )
    return pair


def refused(*words: str) -> None:
    """One sentence, and no question though there is somebody who would answer it."""
    done = subprocess.run(
        [sys.executable, "-m", "towline", *words],
        input=PASSPHRASE + b"\n",
        capture_output=True,
        check=False,
        start_new_session=True,  # OpenSSL would ask on the terminal of the tests
        timeout=30,
    )
    sentence, hint = done.stderr.decode().splitlines()
    assert sentence.startswith("towline: error: the key in ")
    assert sentence.endswith(" is encrypted, and no passphrase is asked for")
    assert "openssl pkey" in hint
    assert done.returncode == 2


def test_an_encrypted_key_is_a_sentence_and_never_a_question(
    registry: Scripted, locked: Certificate, tmp_path: Path
) -> None:
    image = str(make_image(tmp_path / "image.tar").path)
    pair = ["--cert", str(locked.cert), "--key", str(locked.key)]
    refused("push", image, f"{registry.host}/app:1", *pair)
    assert registry.asked == []
    together = tmp_path / "both.pem"
    together.write_bytes(locked.cert.read_bytes() + locked.key.read_bytes())
    refused("push", image, f"{registry.host}/app:1", "--cert", str(together))


def test_so_is_one_in_the_folder_of_the_host(
    strict: Scripted, locked: Certificate, tmp_path: Path
) -> None:
    folder = Path(os.environ["HOME"], ".config/containers/certs.d", strict.host)
    folder.mkdir(parents=True)
    (folder / "me.cert").symlink_to(locked.cert)
    (folder / "me.key").symlink_to(locked.key)
    image = str(make_image(tmp_path / "image.tar").path)
    refused("push", "-q", image, f"{strict.host}/app:1")


def test_so_is_one_of_the_registry_in_the_box(locked: Certificate) -> None:
    pair = ["--tls-cert", str(locked.cert), "--tls-key", str(locked.key)]
    refused("serve", "--listen", "127.0.0.1:0", *pair)
