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

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.certificates import Authority, Certificate, PrivateKey

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
    key = serialization.load_pem_private_key(signer.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    who = {"kid": _key_id(key)} if by_key else {"x5c": [_der(signer)]}
    header = {"typ": "JWT", "alg": algorithm, **who}
    text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    return f"{text}.{_encoded(_signature(key, text.encode()))}"


def _signature(key: PrivateKey, text: bytes) -> bytes:
    """As RFC 7518 has it: section 3.3 for RSA, 3.4 for ECDSA."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _der(signer: Certificate) -> str:
    certificate = x509.load_pem_x509_certificate(signer.cert.read_bytes())
    return base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()


def _key_id(key: PrivateKey) -> str:
    """The registry's own name of a key: twelve groups of its SHA-256 in base 32."""
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = base64.b32encode(hashlib.sha256(public).digest()[:30]).decode()
    return ":".join(text[at : at + 4] for at in range(0, len(text), 4))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


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
