"""A token service whose tokens a real registry verifies (distribution, "Token Authentication").

Signs JWTs with a certificate that the registry is told to trust: ES256 or RS256 by its key. The
certificate comes with the token, or is one of those that the registry has, named by its key. USER
is let in with PASSWORD.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import time
import urllib.parse
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from tests.support.certificates import Authority, Certificate

Kind = Literal["ES256", "RS256", "RS256 by key"]
"""How tokens are signed, and by what the registry knows who did."""
KINDS: tuple[Kind, ...] = ("ES256", "RS256", "RS256 by key")
USER, PASSWORD = "tester", "s3cret-word"
ISSUER, SERVICE = "towline tests", "registry"
_LEEWAY = 60
"""Seconds that the registry allows beyond a token's end."""


@dataclass
class TokenService:
    """`granted` are the scopes of each token given, in order."""

    signer: Certificate
    by_key: bool = False
    """Tokens name the key; else they hold the certificate."""
    url: str = ""
    life: float = 300
    """Seconds for which the registry takes a token."""
    granted: list[list[str]] = field(default_factory=list)

    def auth(self) -> dict[str, Any]:
        """The registry's configuration."""
        return {
            "token": {
                "realm": f"{self.url}/token",
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(self.signer.cert),
            }
        }

    def token(self, scopes: list[str]) -> str:
        self.granted.append(scopes)
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": USER,
            "aud": SERVICE,
            "iat": now,
            "nbf": now - _LEEWAY,
            "exp": now + self.life - _LEEWAY,
            "jti": uuid.uuid4().hex,
            "access": [_access(scope) for scope in scopes],
        }
        return _signed(claims, self.signer, by_key=self.by_key)


def _access(scope: str) -> dict[str, Any]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _signed(claims: dict[str, Any], signer: Certificate, *, by_key: bool) -> str:
    key = signer.key.read_bytes()
    certificate = x509.load_pem_x509_certificate(signer.cert.read_bytes())
    public = certificate.public_key()
    algorithm = "RS256" if isinstance(public, rsa.RSAPublicKey) else "ES256"
    der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    who = {"kid": _key_id(public)} if by_key else {"x5c": [der]}
    return jwt.encode(claims, key, algorithm, who)


def _key_id(key: CertificatePublicKeyTypes) -> str:
    """The registry's own name of a key: twelve groups of its SHA-256 in base 32."""
    public = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = base64.b32encode(hashlib.sha256(public).digest()[:30]).decode()
    return ":".join(text[at : at + 4] for at in range(0, len(text), 4))


@contextlib.contextmanager
def serving(authority: Authority, kind: Kind = "ES256") -> Iterator[TokenService]:
    """Run one on a free loopback port until the end."""
    signer = authority.issue("signer", with_rsa=kind != "ES256")
    service = TokenService(signer, by_key=kind == "RS256 by key")
    expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            if self.headers["Authorization"] != expected:
                self.answer(401, {"details": "incorrect username or password"})
            else:
                token = service.token(query.get("scope", []))
                self.answer(200, {"token": token, "expires_in": int(service.life)})

        def answer(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
