"""What the words of a command mean, as far as it needs no registry."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import towline
from towline.cli import exit_codes, guesses, options
from towline.cli.main import COMMANDS, main
from towline.testing.images import make_image

NOBODY = "no engine answers (looked at"


@pytest.fixture(autouse=True)
def _an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    """Exit code and standard error; nothing may be on standard output."""
    code = main(words)
    out, err = capsys.readouterr()
    assert out == ""
    return code, err.splitlines()


def test_a_name_alone_is_an_engines_image_and_where_none_answers_it_is_told_how_to_pipe_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    assert told(capsys, "push", "app:1") == (
        3,
        [
            f"towline: error: app:1 cannot be read: {NOBODY} unix:///nowhere.sock (DOCKER_HOST))",
            "hint: docker save app:1 | towline push - REGISTRY/app:1",
        ],
    )
    name = "localhost:5000/app"
    for words in ([name], ["-a", name], [f"docker-daemon:{name}"], [f"docker-daemon:{name}", name]):
        code, (_, hint) = told(capsys, "push", *words)
        assert (code, hint) == (3, f"hint: docker save {name} | towline push - {name}")


def test_an_engine_is_looked_for_where_it_is_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    code, (error, _) = told(capsys, "push", "app:1", "--engine", "unix:///nowhere.sock")
    assert code == 3
    assert "looked at unix:///nowhere.sock (`--engine`)" in error
    code, (error, _) = told(capsys, "push", "app:1", "--engine", "ftp://nowhere")
    assert (code, error) == (
        2,
        "towline: error: `--engine` is ftp://nowhere, which is no address of an engine",
    )


@pytest.mark.parametrize("command", ["push", "plan"])
def test_a_file_alone_wants_a_destination(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here" / "app").touch()
    (tmp_path / "here" / "layout").mkdir()
    for word in ("app", "./app", "-", "oci:layout", "oci:layout:1", "docker-archive:none.tar"):
        assert told(capsys, command, word) == (
            2,
            [
                f"towline: error: no destination is named for {word}",
                f"hint: towline {command} {word} REGISTRY/REPOSITORY:TAG",
            ],
        )


def test_a_digest_is_no_destination(capsys: pytest.CaptureFixture[str]) -> None:
    reference = "reg.example/app@sha256:" + "ab" * 32
    for words in ([reference], ["image.tar", reference]):
        code, lines = told(capsys, "push", *words)
        assert code == 2
        assert lines[0] == "towline: error: cannot push a digest reference"


@pytest.mark.parametrize("command", ["push", "plan"])
@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("oci:foo", "copy"),
        ("oci:build/layout:1", "copy"),
        ("oci:/srv/layout", "copy"),
        ("oci:5000", "copy"),
        ("oci-archive:out.tar", "copy"),
        ("docker-archive:out.tar:app", "copy"),
    ],
)
def test_a_push_goes_to_registries_alone(
    command: str, word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = told(capsys, command, "image.tar", "reg.example/app", word)
    assert (code, lines[0]) == (
        2,
        f"towline: error: {word} is not at a registry, and a push goes to registries alone",
    )
    assert [line[:6] for line in lines[1:]] == ["hint: "]
    assert hint in lines[1]


@pytest.mark.parametrize("command", ["push", "plan", "copy"])
def test_nothing_goes_to_a_daemon(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, command, "docker://reg.example/app", "docker-daemon:app:1") == (
        2,
        [
            "towline: error: docker-daemon:app:1 is in a daemon, and nothing is written to one",
            "hint: docker load puts an archive into it",
        ],
    )


@pytest.mark.parametrize("place", ["dir:/srv/app", "containers-storage:app:1"])
def test_what_skopeo_alone_writes_to_is_said_to_be_none_of_ours(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = told(capsys, "copy", "docker://reg.example/app", place)
    assert (code, lines[0]) == (
        2,
        f"towline: error: {place} is a place that towline does not write to",
    )
    assert "oci-archive:FILE" in lines[1]


@pytest.mark.parametrize(
    "destination",
    [
        "docker.io/library/oci:foo",
        "docker://docker.io/oci:foo",
        "oci/foo",
        "oci:5000/app:1",
        "dir:80/app",
    ],
)
def test_a_repository_or_a_registry_may_have_the_name_of_a_transport(
    destination: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = told(capsys, "push", "image.tar", destination)
    assert (code, lines) == (3, ["towline: error: image.tar does not exist"])


@pytest.mark.parametrize("command", ["push", "plan"])
@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["image.tar", "app"], "app names no registry", "docker.io/library/app"),
        (["image.tar", "docker://app"], "app names no registry", "docker.io/library/app"),
        (["image.tar", "to", "reg.example/a"], "to names no registry", "docker.io/library/to"),
        (["image.tar", "dir:out"], "dir:out is a place that towline does not write to", "oci:DIR"),
        (["image.tar", "app:1"], "app:1 names no registry", "REGISTRY/app:1"),
        (["image.tar", "localhost:5601"], "no repository is named", "localhost:5601/REPOSITORY"),
        (["image.tar", "reg.example:80"], "no repository is named", "reg.example:80/REPOSITORY"),
        (["image.tar", "reg:5000"], "no repository is named", "reg:5000/REPOSITORY"),
        (["image.tar", "reg.example/a", "--verify", "full"], "two words", "--verify=full"),
        (["--verify", "full", "image.tar", "reg.example/a"], "two words", "--verify=full"),
        (["image.tar", "reg.example/a", "--tls-verify", "false"], "", "--tls-verify=false"),
        (["reg.example/a", "here.tar"], "here.tar is a path", "here.tar reg.example/a"),
        (["reg.example/a:1", "./here.tar"], "is a path", "./here.tar reg.example/a:1"),
    ],
)
def test_what_was_hardly_meant_for_a_destination_is_refused_with_what_may_have_been_meant(
    command: str, words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("here.tar").touch()
    code, lines = told(capsys, command, *words)
    assert code == 2
    assert message in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]
    assert len(lines) == 2


@pytest.mark.parametrize("command", ["push", "plan"])
def test_a_source_that_is_no_path_is_looked_for_in_an_engine(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    code, (error, hint) = told(capsys, command, "team/app:1", "reg.example/a", "reg.example/b")
    assert code == 3
    assert error.startswith("towline: error: there is no file team/app:1, and team/app:1 cannot")
    assert hint == "hint: docker save team/app:1 | towline push - reg.example/a reg.example/b"
    if command == "push":
        hint = told(capsys, command, "team/app:1")[1][1]
        assert hint == "hint: docker save team/app:1 | towline push - REGISTRY/team/app:1"
    assert len(told(capsys, command, "image.tar", "reg.example/a")[1]) == 1


@pytest.mark.parametrize("words", [["push"], ["push", "image.tar"]])
def test_a_wrong_reference_shows_the_wrong_character(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, *words, "reg.example/Team/app") == (
        2,
        [
            "towline: error: upper case in the repository name of reg.example/Team/app",
            "  reg.example/Team/app",
            "              ^",
            "hint: repository names are lower case: reg.example/team/app",
        ],
    )


@pytest.mark.parametrize("command", sorted(guesses.NOT_YET))
def test_a_command_that_does_not_work_yet_is_refused_by_name(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = told(capsys, command, "a", "b")
    assert (code, lines) == (2, [f"towline: error: `towline {command}` is not available yet"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no command is given"),
        (["pusk"], "no command is called `pusk`"),
        (["--debug", "push"], "`--debug` stands before the command"),
        (["push"], "nothing is named to be pushed"),
        (["tags"], "no repository is named"),
        (["inspect"], "no image is named"),
        (["digest", "a", "b"], "`b` is one word too many"),
        (["push", "image.tar", ""], "the image name is empty"),
    ],
)
def test_what_is_wrong_with_the_words_is_told(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = told(capsys, *words)
    assert code == 2
    assert (
        lines[-2 if lines[-1].startswith("hint: ") else -1].endswith(message) or message in lines[0]
    )


def test_errors_in_the_words_are_objects_with_json_progress(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["push", "--progress", "json", "--nope"], ["push", "--progress=json", "A"]):
        code, lines = told(capsys, *words)
        objects = [json.loads(line) for line in lines]
        assert code == 2
        assert [shown["event"] for shown in objects] == ["error", "hint"][: len(objects)]
        assert objects[0]["exit_code"] == 2


def test_a_digest_file_that_cannot_be_written_is_told_before_the_push(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = told(capsys, "push", "no.tar", "reg.example/app", "--digest-file", "no/file")
    assert (code, lines) == (
        2,
        ["towline: error: `--digest-file no/file`: there is no directory `no`"],
    )
    code, lines = told(capsys, "push", "no.tar", "reg.example/a", "--digest-file", str(tmp_path))
    assert (code, lines[0][-14:]) == (2, "is a directory")


def test_a_word_that_no_file_could_be_called_is_a_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, lines = told(capsys, "push", "n" * 300)
    assert (code, lines[0][:62]) == (
        2,
        "towline: error: the repository name is longer than 255 charact",
    )


def test_a_digest_is_of_one_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_image(tmp_path / "image.tar")
    code, lines = told(capsys, "digest", str(made.path), "-a")
    assert (code, lines) == (
        2,
        [
            "towline: error: `towline digest` has no option `-a`",
            "hint: towline digest --help lists the options",  # none is like one letter
        ],
    )


def test_a_variable_for_pushes_is_nothing_to_a_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_image(tmp_path / "image.tar")
    monkeypatch.setenv("TOWLINE_ALL_TAGS", "true")
    assert main(["digest", str(made.path)]) == 0
    assert capsys.readouterr().out.startswith("sha256:")


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {command} " in shown for command in COMMANDS)
    assert main(["help", "push"]) == 0
    assert capsys.readouterr().out.startswith("usage: towline push NAME[:TAG] | SOURCE DESTIN")


@pytest.mark.parametrize("command", sorted(set(guesses.COMMANDS) - set(COMMANDS)))
def test_commands_of_others_are_answered_with_what_does_it(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, command, "a", "b") == (
        2,
        [
            f"towline: error: no command is called `{command}`",
            f"hint: {guesses.COMMANDS[command]}",
        ],
    )


@pytest.mark.parametrize("option", sorted(guesses.OPTIONS))
def test_options_of_others_are_answered_with_what_does_it(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, "push", "image.tar", "reg.example/app", option) == (
        2,
        [
            f"towline: error: `towline push` has no option `{option}`",
            f"hint: {guesses.OPTIONS[option]}",
        ],
    )


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["pusk"], "did you mean `towline push`?"),
        (["insepct"], "did you mean `towline inspect`?"),
        (["frobnicate"], "towline --help lists them"),
        (["push", "--ouput", "json"], "did you mean `--output`?"),
        (["push", "--chekc-diffids"], "did you mean `--check-diffids`?"),
        (["push", "--sign"], "towline push --help lists the options"),
    ],
)
def test_only_what_was_hardly_missed_is_guessed(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = told(capsys, *words)
    assert (code, lines[-1]) == (2, f"hint: {hint}")


def test_every_command_and_option_that_a_hint_names_is_there() -> None:
    names = {name for group in options.PUSH for one in group.options for name in one.names}
    for hint in (*guesses.COMMANDS.values(), *guesses.OPTIONS.values()):
        assert set(re.findall(r"--[a-z-]+", hint)) <= names, hint
        assert set(re.findall(r"towline ([a-z]+) [A-Z-]", hint)) <= set(COMMANDS), hint


def test_a_variable_that_is_none_of_ours_is_warned_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOWLINE_JOBZ", "TOWLINE_JOBS", "TOWLINE_ROOT", "TOWLINE_CACHE_KEY"):
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("TOWLINE_FROBNICATE", "3")
    for words in (["push", "no.tar", "reg.example/app", "-q"], ["inspect", "oci:none"]):
        _, lines = told(capsys, *words)
        assert lines[:2] == [
            "towline: warning: TOWLINE_FROBNICATE is no variable of towline",
            "towline: warning: TOWLINE_JOBZ is no variable of towline: is TOWLINE_JOBS meant?",
        ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("push dir:x", 3),
        ("push dir:x reg.example/app", 3),
        ("plan dir:/srv/app reg.example/app", 3),
        ("push containers-storage:app:1", 2),
        ("push containers-storage:app:1 reg.example/app", 3),
        ("inspect dir:/srv/app", 2),
        ("digest containers-storage:app:1", 2),
        ("copy dir:/srv/app reg.example/app", 2),
        ("index dir:/srv/app reg.example/app:arm --to reg.example/app", 2),
    ],
)
def test_for_what_skopeo_alone_reads_the_way_through_it_is_told(
    words: str, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    source = words.split()[1]
    hint = f"hint: if it is skopeo's: skopeo copy {source} oci:DIR, then name oci:DIR here"
    found, lines = told(capsys, *words.split())
    assert (found, lines[-1]) == (code, hint)
    Path("dir:x").write_text("no tar")
    _, lines = told(capsys, "push", "dir:x", "reg.example/app")
    assert "skopeo" not in "".join(lines)


@pytest.mark.parametrize("option", ["--digest-file", "--trace"])
@pytest.mark.parametrize(
    ("words", "replaced"),
    [
        ("push here.json reg.example/app", "here.json"),
        ("plan docker-archive:here.json:app:1 reg.example/app", "docker-archive:here.json:app:1"),
        ("copy ./image.tar oci-archive:here.json:1", "oci-archive:here.json:1"),
        ("index ./image.tar ./here.json --to reg.example/app", "./here.json"),
    ],
)
def test_no_option_replaces_the_source_or_what_is_written(
    words: str,
    replaced: str,
    option: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    if "oci-archive" not in words:
        Path("here.json").write_text("an archive")
    Path("link.json").symlink_to("here.json")
    for file in ("here.json", "../here/here.json", "link.json"):
        assert told(capsys, *words.split(), option, file) == (
            2,
            [
                f"towline: error: `{option} {file}` would replace {replaced}",
                "hint: name another file",
            ],
        )
    code, _ = told(capsys, "push", "docker-daemon:new.json", "reg.example/app", option, "new.json")
    assert code == 3


@pytest.mark.parametrize(
    ("words", "layout"),
    [
        ("copy ./image.tar oci:layout:1", "oci:layout:1"),
        ("push layout reg.example/app", "layout"),
        ("index ./layout --to reg.example/app", "./layout"),
    ],
)
@pytest.mark.parametrize("own", ["index.json", "oci-layout", "blobs/sha256/new.json"])
def test_no_option_replaces_a_file_of_a_layout(
    words: str, layout: str, own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("layout/blobs/sha256").mkdir(parents=True)
    Path("layout", own).write_text("of the layout")
    file = f"layout/blobs/../{own}"
    assert told(capsys, *words.split(), "--digest-file", file) == (
        2,
        [
            f"towline: error: `--digest-file {file}` would replace {layout}",
            "hint: name another file",
        ],
    )
    assert Path("layout", own).read_text() == "of the layout"


def test_a_file_of_ones_own_in_a_layout_may_be_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("layout/mine").mkdir(parents=True)
    code, lines = told(capsys, "push", "layout", "reg.example/app", "--trace", "layout/mine/t.json")
    assert (code, "would replace" in lines[0]) == (3, False)


def test_the_digests_and_the_trace_have_a_file_each(capsys: pytest.CaptureFixture[str]) -> None:
    Path("link.json").symlink_to("one.json")
    for words in ("push image.tar reg.example/app", "index a/b --to reg.example/app"):
        files = ["--digest-file", "one.json", "--trace", "link.json"]
        assert told(capsys, *words.split(), *files) == (
            2,
            [
                "towline: error: `--trace link.json` would replace the file of `--digest-file`",
                "hint: name another file",
            ],
        )


@pytest.mark.parametrize("again", ["-", "oci-archive:-:1"])
def test_an_index_has_standard_input_once(again: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "index", "-", again, "--to", "reg.example/app:1") == (
        2,
        [
            "towline: error: standard input is named twice, and can be read once",
            "hint: write one to a file",
        ],
    )


def test_the_version_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"towline {towline.__version__}\n"
    for words in (
        ["help", "version"],
        ["help", "help"],
        ["version", "--help"],
        ["help", "--help"],
        ["version", "-h"],
    ):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith("usage: towline COMMAND")
    for word in ("version", "--version"):
        assert told(capsys, word, "x") == (
            2,
            [f"towline: error: `towline {word}` takes no more words", "hint: towline --version"],
        )


@pytest.mark.parametrize("words", ["-h", "app --help", "-qh", "-j 3 a b c -h", "--help --no-such"])
def test_the_help_of_a_command_is_asked_for_anywhere_among_its_words(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", *words.split()]) == 0
    assert capsys.readouterr().out.startswith("usage: towline push ")


@pytest.mark.parametrize("columns", ["10", "60", "200"])
def test_the_help_of_a_command_is_as_wide_as_the_terminal(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        texts = re.findall(r"(?m)^ {24}(\S.*)$", capsys.readouterr().out)
        # Below some width lines are left to the terminal.
        assert max(map(len, texts), default=0) <= max(int(columns) - 26, 11)


def test_the_help_has_examples_variables_exit_codes_and_says_where_the_rest_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["help"]) == 0
    shown = capsys.readouterr().out
    rows = dict(re.findall(r"(?m)^  ([\d, ]*\d)  +(.*)$", shown))
    codes = {int(code) for row in rows for code in row.split(", ")}
    known = {exit_codes.DONE, exit_codes.OTHER, 143, *(code for _, code in exit_codes.EXIT_CODES)}
    assert codes == known
    assert "\n  towline push image.tar registry.example/team/app:1.2\n" in shown
    assert "TOWLINE_<OPTION>" in shown
    assert Path(shown.splitlines()[-1].removeprefix("All of it: "), "cli.md").is_file()
    assert main(["push", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--no-clobber" in shown
    assert re.search(r"--tls-verify.*\[=true\|false\]", shown)


def test_an_address_of_a_cache_without_its_slashes_is_no_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, lines = told(capsys, "push", "no.tar", "reg.example/app", "--cache", "redis:127.0.0.1")
    assert (code, lines[0]) == (2, "towline: error: redis:127.0.0.1 is no address of a cache")
    assert lines[1].startswith("hint: write redis://127.0.0.1")
    assert not Path("redis:127.0.0.1").exists()


COMPLETED = [
    (["pu"], "push"),
    (["push", "--chec"], "--check-push --check-diffids"),
    (["push", "--if-exists", ""], "overwrite same skip fail"),
    (["push", "here"], "here.tar"),
    (["cache", "st"], "stats"),
]


def test_bash_completes_commands_options_their_words_and_files() -> None:
    Path("here.tar").touch()
    script = subprocess.run(
        [sys.executable, "-m", "towline", "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for words, wanted in COMPLETED:
        line = shlex.join(["towline", *words])
        asked = f"""{script}
            COMP_WORDS=({line}) COMP_CWORD={len(words)} COMP_LINE='{line}'
            $(complete -p towline | sed 's/.*-F //; s/ .*//') towline
            echo "${{COMPREPLY[*]}}"
        """
        bash = ["bash", "--norc", "-c", asked]
        done = subprocess.run(bash, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == wanted, done.stderr


def test_other_shells_and_the_manual_page_are_made_of_the_same_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for word, head in (("zsh", "#compdef towline"), ("fish", "#"), ("man", ".TH TOWLINE 1")):
        assert main(["completion", word]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(head)
        for name in ("--if-exists", "--check-diffids", *COMMANDS):
            assert name.strip("-") in shown.replace("\\-", "-")
    assert told(capsys, "completion", "ksh") == (
        2,
        [
            "towline: error: no shell is known as `ksh`",
            "hint: towline completion bash, zsh, fish or man",
        ],
    )
