"""`--if-exists`, and tags that may not be moved: what is written, and what is left as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support.scripted import CUT, Reply, complaint, scripted
from towline.cli.main import main
from towline.testing.images import ImageSpec, make_image, make_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Place
    from tests.support.scripted import Scripted

RULES = ["overwrite", "same", "skip", "fail"]


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return make_image(tmp_path / "first.tar", [{"a": b"first" * 1000}]).path


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return make_image(tmp_path / "second.tar", [{"a": b"second" * 1000}]).path


def push(image: Path, name: str, rule: Any, **options: Any) -> towline.PushResult:
    result: towline.PushResult = towline.push(image, name, if_exists=rule, retries=0, **options)
    return result


class TestRules:
    @pytest.mark.parametrize("rule", RULES)
    def test_a_tag_that_is_absent_is_written(self, registry: Place, first: Path, rule: str) -> None:
        name = registry.name("app") + ":1"
        assert push(first, name, rule).status == "pushed"
        assert towline.digest(f"docker://{name}") == push(first, name, "overwrite").digest

    @pytest.mark.parametrize("rule", ["overwrite", "same"])
    @pytest.mark.parametrize(
        "options", [{}, {"cache": "none"}, {"check_diffids": True}, {"verify": "head"}]
    )
    def test_a_tag_that_holds_the_same_is_right_and_not_written_again(
        self, registry: Place, first: Path, rule: Any, options: dict[str, Any]
    ) -> None:
        name = registry.name("app") + ":1"
        pushed = push(first, name, "overwrite")
        before = len(registry.requests())
        assert towline.plan(first, name, if_exists=rule, **options).status == "unchanged"
        again = push(first, name, rule, **options)
        assert (again.status, again.digest) == ("unchanged", pushed.digest)
        assert not [one for one in registry.requests()[before:] if one[0] == "PUT"]

    def test_skip_leaves_what_stands_there_and_sends_nothing(
        self, registry: Place, first: Path, second: Path
    ) -> None:
        name = registry.name("app") + ":1"
        pushed = push(first, name, "overwrite")
        before = len(registry.requests())
        events: list[Any] = []
        skipped = push(second, name, "skip", on_event=events.append)
        assert (skipped.status, skipped.digest, skipped.size) == (
            "skipped",
            pushed.digest,
            pushed.size,
        )
        assert (skipped.media_type, skipped.layers, skipped.sent_bytes) == (
            pushed.media_type,
            (),
            0,
        )
        assert [method for method, _ in registry.requests()[before:]] == ["HEAD"]
        notes = [event.message for event in events if event.event == "note"]
        assert notes == [f"{name} exists already and is left as it is"]
        assert [event.digest for event in events if event.event == "tag"] == [pushed.digest]

    @pytest.mark.parametrize("rule", ["same", "fail"])
    def test_another_image_is_refused_before_anything_is_sent(
        self, registry: Place, first: Path, second: Path, rule: str
    ) -> None:
        name = registry.name("app") + ":1"
        pushed = push(first, name, "overwrite")
        before = len(registry.requests())
        with pytest.raises(towline.RegistryError, match="exists already") as caught:
            push(second, name, rule)
        assert pushed.digest in caught.value.message
        assert "`if_exists='overwrite'`" in str(caught.value.hint)
        assert {method for method, _ in registry.requests()[before:]} <= {"HEAD", "GET"}
        assert towline.digest(f"docker://{name}") == pushed.digest

    def test_fail_refuses_the_same_image_too(self, registry: Place, first: Path) -> None:
        name = registry.name("app") + ":1"
        push(first, name, "overwrite")
        with pytest.raises(towline.RegistryError, match="exists already"):
            push(first, name, "fail")

    def test_same_refuses_what_was_compressed_in_another_way(
        self, registry: Place, first: Path
    ) -> None:
        name = registry.name("app") + ":1"
        pushed = push(first, name, "overwrite", compression="gzip")
        with pytest.raises(towline.RegistryError, match="another image"):
            push(first, name, "same", compression="zstd")
        assert towline.digest(f"docker://{name}") == pushed.digest

    def test_of_several_tags_those_that_stand_are_skipped_and_the_others_written(
        self, registry: Place, first: Path, tmp_path: Path
    ) -> None:
        name = registry.name("app")
        standing = push(first, f"{name}:1", "overwrite")
        both = tmp_path / "both.tar"
        make_images(
            both,
            [
                ImageSpec([{"a": b"one"}], names=["app:1"]),
                ImageSpec([{"a": b"two"}], names=["app:2"]),
            ],
        )
        before = len(registry.requests())
        results = towline.push(both, name, all_tags=True, if_exists="skip")
        assert [(result.tag, result.status) for result in results] == [
            ("1", "skipped"),
            ("2", "pushed"),
        ]
        assert results[0].digest == standing.digest
        layers = {layer.digest for layer in results[1].layers}
        asked = registry.requests()[before:]
        sent = {path.rpartition("=")[2] for way, path in asked if way == "PUT" or "digest=" in path}
        # A layer, a config, a manifest: nothing of the image that is not wanted.
        assert (len(layers), len(sent)) == (1, 3)

    def test_a_plan_says_what_would_be_skipped(
        self, registry: Place, first: Path, second: Path
    ) -> None:
        name = registry.name("app") + ":1"
        pushed = push(first, name, "overwrite")
        planned = towline.plan(second, name, if_exists="skip")
        assert isinstance(planned, towline.PlanResult)
        assert (planned.status, planned.digest, planned.send_bytes) == (
            "skipped",
            pushed.digest,
            0,
        )
        with pytest.raises(towline.RegistryError, match="exists already"):
            towline.plan(second, name, if_exists="fail")

    def test_an_unknown_rule_is_a_usage_error(self, first: Path) -> None:
        with pytest.raises(towline.UsageError, match="if_exists"):
            push(first, "registry.example/app", "maybe")


class TestCommand:
    @pytest.mark.parametrize("option", ["--no-clobber", "--if-exists=skip"])
    def test_a_skipped_tag_is_printed_like_any_other(
        self,
        registry: Place,
        first: Path,
        second: Path,
        option: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        name, file = registry.name("app"), first.parent / "digest"
        digest = push(first, f"{name}:1", "overwrite").digest
        words = ["push", str(second), f"{name}:1", option, "-q", "--digest-file", str(file)]
        assert main(words) == 0
        assert capsys.readouterr() == (f"{name}@{digest}\n", "")
        assert file.read_text() == f"{digest}\n"
        assert main([*words, "--output", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["status"] == "skipped"

    @pytest.mark.parametrize("rule", ["same", "fail"])
    def test_a_refusal_is_exit_code_5(
        self,
        registry: Place,
        first: Path,
        second: Path,
        rule: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        name = registry.name("app")
        push(first, f"{name}:1", "overwrite")
        assert main(["push", str(second), f"{name}:1", "--if-exists", rule]) == 5
        out, err = capsys.readouterr()
        assert out == ""
        assert f"towline: error: {name}:1 exists already" in err


IMMUTABLE = [
    complaint(400, "TAG_INVALID", "The image tag '1' cannot be overwritten: it is immutable"),
    complaint(403, "DENIED", "tag 1 is immutable"),
    complaint(409, "TAG_IMMUTABLE", "cannot replace tag"),
    complaint(412, "PRECONDITION", "configured as immutable, cannot be updated"),
    Reply(409),
    Reply(412),
]


class TestImmutable:
    @pytest.fixture
    def closed(self) -> Iterator[Scripted]:
        """A registry that refuses to write any manifest under a tag that there is."""
        with scripted() as server:
            yield server

    @pytest.mark.parametrize("refusal", IMMUTABLE)
    def test_another_image_ends_in_one_error_that_says_immutable(
        self,
        closed: Scripted,
        first: Path,
        second: Path,
        refusal: Reply,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        name = f"{closed.host}/team/app:1"
        pushed = push(first, name, "overwrite")
        closed.on("PUT", "/manifests/1$", refusal, forever=True)
        before = len(closed.requests("PUT", "/manifests/"))
        assert main(["push", str(second), name, "-q"]) == 5
        assert "immutable" in capsys.readouterr().err
        assert len(closed.requests("PUT", "/manifests/")) == before + 1
        assert towline.digest(f"docker://{name}") == pushed.digest

    @pytest.mark.parametrize(
        "options", [{}, {"cache": "none"}, {"check_diffids": True}, {"verify": "head"}]
    )
    @pytest.mark.parametrize("refusal", IMMUTABLE)
    def test_the_same_image_is_done_without_a_put(
        self, closed: Scripted, first: Path, refusal: Reply, options: dict[str, Any]
    ) -> None:
        name = f"{closed.host}/team/app:1"
        pushed = push(first, name, "overwrite")
        closed.on("PUT", "/manifests/1$", refusal, forever=True)
        before = len(closed.requests("PUT", "/manifests/"))
        again = push(first, name, "overwrite", **options)
        assert (again.status, again.digest) == ("unchanged", pushed.digest)
        assert len(closed.requests("PUT", "/manifests/")) == before

    @pytest.mark.parametrize("refusal", IMMUTABLE)
    def test_the_same_image_that_nobody_looked_for_is_done_too(
        self, closed: Scripted, first: Path, refusal: Reply
    ) -> None:
        name = f"{closed.host}/team/app:1"
        pushed = push(first, name, "overwrite")
        closed.on("PUT", "/manifests/1$", refusal, forever=True)
        assert push(first, name, "overwrite", cache="none", no_learn=True).digest == pushed.digest

    @pytest.mark.parametrize("answer", [CUT, Reply(500), Reply(503)])
    def test_a_lost_answer_to_what_was_carried_out_is_settled_by_looking(
        self, closed: Scripted, first: Path, answer: Reply
    ) -> None:
        def carried_out(asked: Any) -> Reply:
            closed.sound(asked)
            return answer

        closed.on("PUT", "/manifests/1$", carried_out)
        result = push(first, f"{closed.host}/team/app:1", "overwrite")
        assert result.status == "pushed"
        assert len(closed.requests("PUT", "/manifests/")) == 1
