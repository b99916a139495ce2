"""Whole pushes through a proxy that spoils one exchange: each is outlived, and none ends in a lie.

The registry behind it is a real one, and it is the one that is read afterwards.
"""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pytest

import towline
from tests.support.faulty import BODY_FAULTS, FAULTS, Fault, FaultyProxy, Rule, faulty
from tests.support.pushing import client_of
from tests.support.quick import quick
from towline.spec import manifest as manifests
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.docker_registry import DockerRegistry

TOGETHER = 16
"""Pushes at once: most of their time is waiting."""
Form = Literal["docker", "docker-large", "oci-archive"]
POINTS: list[tuple[Form, str, str, int]] = [
    ("docker", "HEAD", "/blobs/", 0),
    ("docker", "HEAD", "/manifests/", 0),
    ("docker", "POST", "/uploads/", 0),
    ("docker", "POST", "/uploads/", 1),
    ("docker", "PUT", "/uploads/", 0),
    ("docker", "PUT", "/uploads/", 1),
    ("docker", "PUT", "/manifests/", 0),
    ("docker-large", "PATCH", "/uploads/", 0),
    ("docker-large", "PUT", "/uploads/", 2),
    ("oci-archive", "PUT", "/uploads/", 0),
    ("oci-archive", "PUT", "/uploads/", 1),
]
BIG = hashlib.shake_128().digest(320_000)
LARGE = hashlib.shake_128().digest(1_100_000)
"""What is larger than 1 MiB is streamed; the rest goes in one PUT."""


@dataclass(frozen=True)
class Pushes:
    """Pushes of one image, each through a proxy of its own."""

    source: Path
    registry: DockerRegistry

    def outlived(
        self, repository: str, *rules: Rule, verify: Literal["head", "full", False] = False
    ) -> str:
        """Push; what is wrong with how it ended, or nothing. One fault alone must strike."""
        with faulty(self.registry.host, *rules) as proxy:
            name = f"{proxy.host}/{repository}:1"
            try:
                with towline.Pusher(cache="none", plain_http=True, timeout=1.0) as pusher:
                    quick(pusher).push(self.source, name, verify=verify)
            except towline.TowlineError as error:
                return f"{_story(proxy)}: {error}"
        wrong = self.wrong(repository)
        if not wrong and len(rules) == 1 and not proxy.hit:
            wrong = f"it never struck: {proxy.asked}"
        return f"{_story(proxy)}: {wrong}" if wrong else ""

    def wrong(self, repository: str) -> str:
        """What is wrong with the image as the registry holds it."""
        with client_of(self.registry.host) as client:
            read, context = client.repo(repository), client.context
            raw = read.get_manifest("1", context)
            if raw is None:
                return "there is no tag"
            parsed = manifests.parse(raw.content, raw.media_type)
            assert isinstance(parsed, manifests.Manifest)
            for blob in (parsed.config, *parsed.layers):
                if len(read.read_blob(blob.digest, context, blob.size)) != blob.size:
                    return f"{blob.digest} has another size"
        return ""


def _story(proxy: FaultyProxy) -> str:
    return "; ".join(f"{rule.method} {rule.at} {rule.fault.name}" for rule in proxy.rules)


def pushes_of(form: Form, folder: Path, registry: DockerRegistry) -> Pushes:
    """A docker archive has layers that we compress, a layout layers of known digest."""
    layers = [{"big": LARGE if form == "docker-large" else BIG}, {"small": b"hello"}]
    kind: Literal["docker", "oci-archive"] = "docker" if form == "docker-large" else form
    return Pushes(make_image(folder / "image.tar", layers=layers, format=kind).path, registry)


def faults_of(method: str) -> list[Fault]:
    return FAULTS + (BODY_FAULTS if method in {"PATCH", "PUT"} else [])


def all_outlived(
    pushes: Pushes,
    name: str,
    cases: Sequence[tuple[Rule, ...]],
    *,
    verify: Literal["head", "full", False] = False,
) -> None:
    with ThreadPoolExecutor(TOGETHER) as executor:
        jobs = [
            executor.submit(pushes.outlived, f"{name}/n{number}", *rules, verify=verify)
            for number, rules in enumerate(cases)
        ]
    failed = [wrong for job in jobs if (wrong := job.result())]
    assert failed == []


@pytest.mark.parametrize(
    "point", POINTS, ids=[f"{form}-{method}{pattern}{at}" for form, method, pattern, at in POINTS]
)
def test_a_push_outlives_whatever_happens_to_one_exchange(
    tmp_path: Path, docker_registry: DockerRegistry, point: tuple[Form, str, str, int]
) -> None:
    form, method, pattern, at = point
    cases = [(Rule(method, pattern, fault, at),) for fault in faults_of(method)]
    name = f"single/{form}/{method}{pattern.strip('/')}{at}".lower()
    all_outlived(pushes_of(form, tmp_path, docker_registry), name, cases)


@pytest.mark.parametrize(
    ("verify", "method", "kind"),
    [("full", "GET", "manifests"), ("full", "GET", "blobs"), ("head", "HEAD", "blobs")],
)
def test_a_verification_outlives_whatever_happens_to_one_exchange(
    tmp_path: Path,
    docker_registry: DockerRegistry,
    verify: Literal["head", "full"],
    method: str,
    kind: str,
) -> None:
    cases = [(Rule(method, f"/{kind}/", fault),) for fault in faults_of(method)]
    pushes = pushes_of("docker", tmp_path, docker_registry)
    all_outlived(pushes, f"verified/{verify}/{kind}", cases, verify=verify)


@pytest.mark.parametrize("form", ["docker", "oci-archive"])
def test_a_push_outlives_several_faults_together(
    tmp_path: Path, docker_registry: DockerRegistry, form: Form
) -> None:
    pick = random.Random(7)  # noqa: S311 - a choice that is the same in each run

    def rule() -> Rule:
        _, method, pattern, at = pick.choice(POINTS)
        return Rule(method, pattern, pick.choice(faults_of(method)), at + pick.randint(0, 1))

    cases = [tuple(rule() for _ in range(pick.randint(2, 4))) for _ in range(40)]
    all_outlived(pushes_of(form, tmp_path, docker_registry), f"mixed/{form}", cases)
