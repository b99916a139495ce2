"""The certificate that a registry shows."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from towline.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For `Server`'s `tls`. Raises UsageError where the files cannot be used."""

    def encrypted() -> str:
        # Else OpenSSL itself asks for a passphrase on the terminal, and no signal ends that.
        raise UsageError(
            f"the key in {key} is encrypted, and no passphrase is asked for",
            hint=f"give a key without a passphrase: openssl pkey -in {key} -out FILE",
        )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=encrypted)
    except OSError as error:  # SSLError too
        reason = error.strerror or error
        message = f"cannot use the certificate {certificate} with the key {key}: {reason}"
        raise UsageError(message) from None
    return context
