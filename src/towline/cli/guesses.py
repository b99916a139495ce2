"""Hints for commands and options of docker, crane, skopeo, oras, buildah and regctl.

Each hint says what does the same in towline, or which program does it where towline does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

NOT_YET = frozenset({"sign", "sync", "verify"})
"""Commands that are refused until they work."""
COMMANDS = {
    "auth": "towline login REGISTRY, or towline logout REGISTRY",
    "build": "towline builds nothing: docker build, or buildah build",
    "catalog": "towline does not list repositories: crane catalog REGISTRY",
    "config": "towline inspect REF --output json shows the config",
    "cp": "towline copy SOURCE DESTINATION",
    "delete": "towline deletes nothing: crane delete REF",
    "export": "towline does not pull: crane export REF FILE",
    "images": "towline inspect SOURCE lists the images of an archive",
    "list": "towline tags REPOSITORY",
    "load": "towline loads nothing into a daemon: docker load",
    "ls": "towline tags REPOSITORY",
    "manifest": "towline inspect REF --output json; the bytes themselves: crane manifest REF",
    "prune": "towline cache prune",
    "pull": "towline copy REF docker-archive:FILE:NAME, or oci:DIR",
    "repo": "towline tags REPOSITORY; repositories: crane catalog REGISTRY",
    "rm": "towline deletes nothing: crane delete REF",
    "rmi": "towline deletes nothing: crane delete REF",
    "save": "docker save NAME | towline push - DESTINATION",
    "validate": "towline push SOURCE DESTINATION --verify=full",
}
"""Hints by the name of a command that towline does not have."""

OPTIONS = {
    "--all": "--all-tags; all platforms of an index go by themselves",
    "--concurrency": "--jobs N",
    "--config": "--authfile FILE",
    "--dest-creds-stdin": "-u USER --password-stdin",
    "--force": "a tag that exists is replaced anyway: leave it out",
    "--force-compression": "--compression PROFILE",
    "--from-file": "name the file: towline push FILE DESTINATION",
    "--image-parallel-copies": "--jobs N",
    "--insecure-registry": "--insecure, or --plain-http",
    "--json": "--output json",
    "--max-concurrent-uploads": "--jobs N",
    "--parallel": "--jobs N",
    "--password": "-u USER --password-stdin: what stands in a command line is seen by all",
    "--raw": "--output json",
    "--recursive": "all platforms of an index go by themselves: leave it out",
    "--registry-config": "--authfile FILE",
    "--skip-tls-verify": "--insecure",
    "--tag": "the tag stands in the destination: REGISTRY/REPOSITORY:TAG",
    "--threads": "--jobs N",
    "--user": "--username USER",
    "--verbose": "--debug",
    "-k": "--insecure",
    "-o": "--output json, or --output text",
    "-p": "-u USER --password-stdin: what stands in a command line is seen by all",
    "-t": "the tag stands in the destination: REGISTRY/REPOSITORY:TAG",
    "-v": "--debug",
}
"""Hints by the name of an option that the command does not have."""


def near(word: str, known: Iterable[str], prefix: str = "") -> str | None:
    """The known name that `word` is a likely typing error of; None where none is close.

    Names are compared without `prefix`, which would make all of them alike.
    """
    from difflib import get_close_matches

    ends = [one.removeprefix(prefix) for one in known if one.startswith(prefix)]
    found = get_close_matches(word.removeprefix(prefix), ends, 1, cutoff=0.75)
    return f"{prefix}{found[0]}" if found else None
