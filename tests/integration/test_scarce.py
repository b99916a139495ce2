"""Where a process may open few files, start no threads, say nothing, or write nothing down.

What there is too little of costs speed, or is named in a sentence. Nothing is left hanging.
"""

from __future__ import annotations

import gzip
import os
import pty
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.pushing import client_of
from tests.support.raw_client import RawClient
from tests.support.scripted import scripted
from towline.reference import RepositoryName
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towline.testing import TestRegistry

GiB = 1 << 30
NO_THREAD = "the system lets this process start no thread"
LAYERS = [{f"f{number}": os.urandom(300_000)} for number in range(12)]
TOWLINE = [sys.executable, "-m", "towline"]


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(make_image(tmp_path / "image.tar", LAYERS).path)


def ran(
    *words: str,
    first: str = ":",
    limits: Mapping[int, int] | None = None,
    environ: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The command, with soft limits, and after what a shell does first; never one that hangs."""

    def lower() -> None:
        for limit, most in (limits or {}).items():
            resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))

    done = subprocess.run(
        ["sh", "-c", f'{first}; exec "$@"', "sh", *TOWLINE, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        preexec_fn=lower,
        env={**os.environ, **(environ or {})},
    )
    for trace in ("Traceback", "Exception", "should not have happened"):
        assert trace not in done.stderr, done.stderr
    return done


class TestFewFiles:
    def ran(self, count: int, *words: str) -> subprocess.CompletedProcess[str]:
        return ran(*words, limits={resource.RLIMIT_NOFILE: count})

    @pytest.mark.parametrize("jobs", ["1", "16"])
    def test_a_push_to_several_repositories_goes_with_fewer_connections(
        self, oci_registry: TestRegistry, image: str, jobs: str
    ) -> None:
        places = [f"{oci_registry.name(name)}:1" for name in ("a", "b", "c", "d")]
        done = self.ran(16, "push", image, *places, "-q", "--jobs", jobs)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == 4

    def test_one_that_cannot_even_connect_says_so(
        self, oci_registry: TestRegistry, image: str
    ) -> None:
        name = f"{oci_registry.name('a')}:1"
        done = self.ran(10, "push", image, name, "-q", "--retries", "0", "--cache", "none")
        *_, error, hint = done.stderr.splitlines()
        assert done.returncode == 6
        assert error.endswith("too many open files")
        assert "ulimit -n" in hint

    def test_one_that_cannot_even_begin_says_so(self, image: str) -> None:
        done = self.ran(5, "push", image, "localhost:1/app:1", "-q")
        error, hint = done.stderr.splitlines()
        assert done.returncode == 1
        assert error == "towline: error: this process may open no more files"
        assert "ulimit -n" in hint

    def test_connections_that_nobody_uses_make_room_for_others(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with scripted() as first, scripted() as second, client_of(first) as client:
            digest = Digest.of(b"x")
            ready = threading.Barrier(4)

            def ask() -> None:
                ready.wait()
                client.repository.has_blob(digest, client.context)

            client.repository.has_blob(digest, client.context)
            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            other = client.client.repository(RepositoryName(second.host, "team/app"))
            lowest = os.dup(0)
            os.close(lowest)
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 4, hard))
                assert other.has_blob(digest, client.context) is False
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere stacks are not counted so")
class TestNoThreads:
    """Stacks of a GiB, and room for less than that."""

    def ran(self, *words: str, threads: int = 0) -> subprocess.CompletedProcess[str]:
        room = (threads + 1) * GiB - (GiB >> 2)
        return ran(*words, limits={resource.RLIMIT_STACK: GiB, resource.RLIMIT_AS: room})

    def test_what_needs_none_goes_on(self, oci_registry: TestRegistry, image: str) -> None:
        assert self.ran("inspect", image).returncode == 0
        name = oci_registry.name("a")
        assert ran("push", image, f"{name}:1", "-q").returncode == 0
        done = self.ran("tags", name)
        assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")

    def test_a_name_is_looked_up_all_the_same(self) -> None:
        done = self.ran("tags", "nowhere.invalid/app", "--retries", "0")
        assert done.returncode == 6
        assert "the name nowhere.invalid cannot be resolved" in done.stderr

    def test_a_warning_is_shown_all_the_same(self, image: str) -> None:
        done = self.ran("plan", image, "localhost:1/a:1", "--cache", "redis://127.0.0.1:1/")
        assert "warning: the cache cannot be asked: can't start new thread" in done.stderr

    @pytest.mark.parametrize("names", ["a", "abcd"])
    @pytest.mark.parametrize("threads", [0, 1, 2, 4, 8, 16])
    def test_a_push_comes_to_its_end_or_says_so(
        self, oci_registry: TestRegistry, image: str, threads: int, names: str
    ) -> None:
        places = [f"{oci_registry.name(name)}:1" for name in names]
        done = self.ran("push", image, *places, "-q", threads=threads)
        if done.returncode:
            assert done.returncode == 1
            assert NO_THREAD in done.stderr
            assert "ulimit -u" in done.stderr
        else:
            assert len(done.stdout.splitlines()) == len(names)

    @pytest.mark.parametrize("verb", ["digest", "plan", "serve"])
    def test_what_needs_one_says_so(self, image: str, verb: str) -> None:
        words = {
            "digest": [image],
            "plan": [image, "localhost:1/a:1", "localhost:1/b:1", "-q"],
            "serve": ["--listen", "127.0.0.1:0"],
        }
        done = self.ran(verb, *words[verb])
        error, hint = done.stderr.splitlines()
        assert done.returncode == 1
        assert error == f"towline: error: {NO_THREAD}"
        assert "ulimit -u" in hint


class TestNothingCanBeSaid:
    @pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
    @pytest.mark.parametrize("face", ["plain", "json", "tty", "none"])
    def test_a_push_goes_on(
        self, oci_registry: TestRegistry, image: str, where: str, face: str
    ) -> None:
        name = oci_registry.name("a")
        words = ["push", image, f"{name}:1", "--progress", face, "--debug"]
        done = ran(*words, first=f"exec {where}")
        assert done.returncode == 0
        assert done.stdout.startswith(f"{name}@sha256:")

    @pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
    def test_a_failure_keeps_its_exit_code(self, image: str, where: str) -> None:
        words = ["push", image, "localhost:1/a:1", "--retries", "0"]
        assert ran(*words, first=f"exec {where}").returncode == 6
        assert ran("push", first=f"exec {where}").returncode == 2

    def test_a_question_that_cannot_be_asked_is_none(self) -> None:
        ours, theirs = pty.openpty()
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *TOWLINE, "login", "reg.example"]
        with os.fdopen(ours, "rb", 0), os.fdopen(theirs, "rb", 0) as terminal:
            done = subprocess.run(
                command, stdin=terminal, capture_output=True, check=False, timeout=30
            )
        assert done.returncode == 2

    def test_a_registry_answers(self, tmp_path: Path) -> None:
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *TOWLINE, "serve", "--listen", "127.0.0.1:0"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, stdin=subprocess.DEVNULL
        ) as serving:
            assert serving.stdout is not None
            url = serving.stdout.readline().split()[-1]
            try:
                with RawClient(url.removeprefix("http://")) as client:
                    assert client.ask("GET", "/v2/").status == 200
                    assert client.ask("GET", "/v2/none/tags/list").status == 404
            finally:
                serving.terminate()
        assert serving.returncode == 0


FULL = """
for folder in /tmp /var/tmp /mnt; do
    mount -t tmpfs -o size=4k tmpfs $folder && head -c 8192 /dev/zero > $folder/all 2> /dev/null
done
cd /mnt && unset TMPDIR TEMP TMP && exec "$@"
"""


class TestFullDisk:
    """A limit of the size of files stands for it: the bytes that would be too many are refused."""

    def ran(self, *words: str, first: str = ":") -> subprocess.CompletedProcess[str]:
        return ran(*words, first=first, limits={resource.RLIMIT_FSIZE: 20})

    @pytest.mark.parametrize("before", [None, "sha256:old\n"])
    def test_a_digest_file_stays_as_it_was(
        self, oci_registry: TestRegistry, image: str, tmp_path: Path, before: str | None
    ) -> None:
        file = tmp_path / "digests" / "digest"
        file.parent.mkdir()
        if before:
            file.write_text(before)
        to = f"{oci_registry.name('app')}:1"
        done = self.ran("push", image, to, "-q", "--cache", "none", "--digest-file", str(file))
        assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)
        assert done.stderr == (
            f"towline: error: the result cannot be written to {file}: File too large\n"
        )
        assert [each.read_text() for each in file.parent.iterdir()] == ([before] if before else [])

    def test_a_login_that_cannot_be_kept_is_no_usage_error(
        self, oci_registry: TestRegistry, tmp_path: Path
    ) -> None:
        file = tmp_path / "logins" / "auth.json"
        (tmp_path / "password").write_text("it")
        words = ("login", oci_registry.host, "-u", "me", "--password-stdin")
        done = self.ran(*words, "--authfile", str(file), first=f"exec < {tmp_path}/password")
        assert (done.returncode, done.stdout) == (1, "")
        said = f"towline: error: the login cannot be kept in {file}: File too large"
        assert done.stderr.splitlines()[-1] == said
        assert not [*file.parent.iterdir()]


def test_no_room_in_any_folder_for_what_is_kept_meanwhile_is_a_sentence(image: str) -> None:
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        works = subprocess.run([*alone, "mount -t tmpfs tmpfs /mnt"], check=False)
    except FileNotFoundError:
        pytest.skip("unshare is needed")
    if works.returncode:
        pytest.skip("no file system can be mounted here")
    packed = Path(f"{image}.gz")
    packed.write_bytes(gzip.compress(Path(image).read_bytes(), 1))
    with packed.open("rb") as archive:
        words = ["push", "-", "localhost:1/app:1", "-q", "--cache", "none"]
        done = subprocess.run(
            [*alone, FULL, "sh", *TOWLINE, *words],
            stdin=archive,
            capture_output=True,
            check=False,
            text=True,
        )
    error, hint = done.stderr.splitlines()
    assert done.returncode == 3
    assert error.startswith("towline: error: no room to spool standard input under /tmp")
    assert "TMPDIR" in hint
