"""An authority of a test's own, and certificates for servers and clients on loopback."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

    PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, each a PEM file."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """Issues certificates into its folder; `ca` is what a client must trust."""

    folder: Path
    name: x509.Name
    private: ec.EllipticCurvePrivateKey
    ca: Path

    def issue(
        self, name: str = "localhost", *others: str, with_rsa: bool = False, days: int = 2
    ) -> Certificate:
        """A certificate for localhost, 127.0.0.1, ::1 and other names, valid for `days`.

        `name` is its subject and file name.
        """
        private: PrivateKey = (
            rsa.generate_private_key(65537, 2048)
            if with_rsa
            else ec.generate_private_key(ec.SECP256R1())
        )
        hosts = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
            *map(x509.DNSName, others),
        ]
        builder = (
            _builder(_named(name), self.name, private, self.private, days)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        cert = self.folder / f"{name}.crt"
        cert.write_bytes(_pem(builder.sign(self.private, hashes.SHA256())))
        return Certificate(cert, _write_key(self.folder / f"{name}.key", private))


def make_authority(folder: Path, name: str = "towline test authority") -> Authority:
    """A new authority whose certificate is `ca.crt` in a folder."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = _named(name)
    builder = (
        _builder(subject, subject, private, private)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_may_sign(), critical=True)
    )
    ca = folder / "ca.crt"
    ca.write_bytes(_pem(builder.sign(private, hashes.SHA256())))
    return Authority(folder, subject, private, ca)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    private: PrivateKey,
    signer: PrivateKey,
    days: int = 2,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=9))
        .not_valid_after(now + dt.timedelta(days=days))
        # Python 3.13 and later want both of a chain (RFC 5280, sections 4.2.1.1 and 4.2.1.2).
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False
        )
    )


def _may_sign() -> x509.KeyUsage:
    """What Python 3.13 and later want of an authority (RFC 5280, section 4.2.1.3)."""
    others = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(key_cert_sign=True, crl_sign=True, **others)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, private: PrivateKey) -> Path:
    encoded = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.touch(mode=0o600)
    path.write_bytes(encoded)
    return path
