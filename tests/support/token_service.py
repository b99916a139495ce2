"""A token service whose tokens a real registry verifies (distribution, "Token Authentication").

Signs ES256 JWTs with a certificate that the registry is told to trust; lets in USER with PASSWORD.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
import urllib.parse
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.certificates import Certificate

USER, PASSWORD = "tester", "s3cret-word"
ISSUER, SERVICE = "towline tests", "registry"
_LEEWAY = 60
"""Seconds that the registry allows beyond a token's end."""


@dataclass
class TokenService:
    """`granted` are the scopes of each token given, in order."""

    signer: Certificate
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
        return _signed(claims, self.signer)


def _access(scope: str) -> dict[str, Any]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _signed(claims: dict[str, Any], signer: Certificate) -> str:
    certificate = x509.load_pem_x509_certificate(signer.cert.read_bytes())
    key = serialization.load_pem_private_key(signer.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    chain = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    header = {"typ": "JWT", "alg": "ES256", "x5c": [chain]}
    text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextlib.contextmanager
def serving(signer: Certificate) -> Iterator[TokenService]:
    """Run one on a free loopback port until the end."""
    service = TokenService(signer)
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
