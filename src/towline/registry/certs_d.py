"""Which certificates are for which registry: the options, and on top of them `certs.d`.

Docker and Podman keep a folder for each HOST[:PORT]: `*.crt` are authorities, NAME.cert and
NAME.key a client's pair. The first folder that exists counts, the user's own before the system's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import UsageError
from towline.reference import HUB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towline.wire.tls import Trust


def trust_of(host: str, given: Trust, environ: Mapping[str, str]) -> Trust:
    """The authorities and the client's certificate for a host: those given, and its folder's.

    Raises UsageError for a client's certificate without a key.
    """
    from pathlib import Path

    home = environ.get("HOME")
    config = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    own = (f"{config}/containers/certs.d", f"{config}/docker/certs.d") if config else ()
    places = (*own, "/etc/containers/certs.d", "/etc/docker/certs.d")
    folders = (Path(place, host) for place in places)
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None or host == HUB:  # docker reads no folder for it
        return given
    try:
        found = sorted(folder.iterdir())
    except OSError:  # not for this user to read
        return given
    authorities = tuple(path for path in found if path.suffix == ".crt")
    trust = given._replace(authorities=(*given.authorities, *authorities))
    pairs = [path for path in found if path.suffix == ".cert"]
    if given.certificate is not None or not pairs:
        return trust
    certificate = pairs[0]
    key = certificate.with_suffix(".key")
    if not key.exists():
        raise UsageError(f"{certificate} has no {key.name} beside it")
    return trust._replace(certificate=certificate, key=key)
