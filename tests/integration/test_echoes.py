"""Registries that send back what they were shown, in every place and encoding: none is printed."""

from __future__ import annotations

import base64
import html
import json
import pickle
import traceback
import urllib.parse
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.scripted import Reply, Scripted, complaint, scripted
from towline.cli.main import main
from towline.testing.images import make_image
from towline.wire.message import ANSWER_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.scripted import Answering, Asked

    Capture = pytest.CaptureFixture[str]
    Setting = Callable[[Scripted, str], None]

USER = "me"
WORD = 's3cr+t wö<rd>/"7\\'
"""A password in which every encoding finds something to do."""
PAIR = base64.b64encode(f"{USER}:{WORD}".encode()).decode()
TOKEN = "eyJ0b2tlbg.c2VjcmV0LWFjY2Vzcw.t0-k_en"
REFRESH = "r3fresh/t0ken+all=="
STATE = "c3RhdGUtb2YtdGhlLXNlc3Npb24"
JSON = {"Content-Type": "application/json"}


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def units(text: str) -> str:
    return "".join(f"\\u{ord(c):04x}" for c in text)


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "base64": base64_of,
    "base64 without padding": lambda text: base64_of(text).rstrip("="),
    "base64 for URLs": lambda text: base64_of(text).translate(str.maketrans("+/", "-_")),
    "base64 among other bytes": lambda text: base64_of(f'{{"password":{text}}}'),
    "percents": lambda text: urllib.parse.quote(text, safe=""),
    "percents in lower case": lambda text: urllib.parse.quote(text, safe="").lower(),
    "percents twice": lambda text: urllib.parse.quote(urllib.parse.quote(text)),
    "percents for all": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "a form": urllib.parse.quote_plus,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "JSON by code points": units,
    "JSON by code points in capitals": lambda text: units(text).upper().replace("\\U", "\\u"),
    "JSON for HTML": lambda text: json.dumps(text)[1:-1].replace("<", "\\u003c"),
    "HTML": html.escape,
    "HTML by numbers": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "HTML by hexadecimal numbers": lambda text: "".join(f"&#x{ord(c):X};" for c in text),
    "capitals": str.upper,
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal in capitals": lambda text: text.encode().hex().upper(),
    "Python": lambda text: repr(text)[1:-1],
}
SECRETS = (WORD, PAIR, TOKEN, REFRESH)


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_image(tmp_path_factory.mktemp("image") / "image.tar", [{"a": b"a"}]).path)


def guarded(registry: Scripted, **headers: str) -> None:
    """Ask for a token, and give it for the password."""
    challenge = f'Bearer realm="{registry.url}/token",service="reg"'

    def guard(asked: Asked) -> Reply | None:
        shown = asked.header("Authorization") == f"Bearer {TOKEN}"
        return None if shown else Reply(401, {"WWW-Authenticate": challenge})

    def grant(asked: Asked) -> Reply:
        if asked.header("Authorization") != f"Basic {PAIR}":
            return Reply(401, JSON, '{"details": "who is that?"}')
        fields = {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return Reply(200, fields, json.dumps({"token": TOKEN, "refresh_token": REFRESH}))

    registry.guard = guard
    registry.on("GET", "^/token", grant, forever=True)


def printed(registry: Scripted, image: str, capsys: Capture, *words: str) -> tuple[int, str]:
    """Push with --debug; the exit code and all that was printed."""
    name = f"{registry.host}/team/app:1"
    creds = ["--creds", f"{USER}:{WORD}", "--retries=1", "--cache=none"]
    code = main(["push", image, name, "--debug", "--output=json", *creds, *words])
    out, err = capsys.readouterr()
    return code, out + err


def spellings() -> Iterator[str]:
    for secret in (*SECRETS, STATE):
        for encode in ENCODINGS.values():
            yield encode(secret)
            yield encode(secret).encode().decode("latin-1")


def told(text: str) -> list[str]:
    """What of the secrets is in a text, also what is left of one that was cut off."""
    found = [spelling for spelling in spellings() if spelling in text]
    return found + [s for s in (*SECRETS, STATE) if s[:9] in text]


def warned(echo: str) -> Answering:
    quoted = echo.replace("\\", "\\\\").replace('"', '\\"').encode().decode("latin-1")
    return lambda _: Reply(200, {**JSON, "Warning": f'299 - "echo {quoted}"'}, "{}")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_encoding_of_a_secret_is_printed(
    registry: Scripted, image: str, capsys: Capture, encoding: str
) -> None:
    guarded(registry)
    echo = " and ".join(map(ENCODINGS[encoding], SECRETS))
    registry.on("HEAD", "blobs", warned(echo), forever=True)
    registry.on("POST", "uploads", complaint(403, "DENIED", f"echo {echo} end"), forever=True)
    code, text = printed(registry, image, capsys)
    assert code == 4
    assert text.count("[hidden]") > 1
    assert told(text) == []


def refusing(
    reply: Callable[[str], Reply], method: str = "POST", where: str = "uploads"
) -> Setting:
    def set_up(registry: Scripted, echo: str) -> None:
        guarded(registry)
        registry.on(method, where, reply(echo), forever=True)

    return set_up


def in_session(registry: Scripted, echo: str) -> None:
    guarded(registry)
    path = f"/v2/team/app/blobs/uploads/{urllib.parse.quote(echo, safe='')}"
    registry.on("POST", "uploads", Reply(202, {"Location": path}), forever=True)
    for method in ("PUT", "PATCH"):
        registry.on(method, "uploads", complaint(403, "DENIED"), forever=True)


def in_state(registry: Scripted, _: str) -> None:
    guarded(registry)
    path = f"/v2/team/app/blobs/uploads/1?_state={STATE}"
    registry.on("POST", "uploads", Reply(202, {"Location": path}), forever=True)
    for method in ("PUT", "PATCH"):
        registry.on(method, "uploads", complaint(403, "DENIED", f"no {STATE}"), forever=True)


def after_a_try(registry: Scripted, echo: str) -> None:
    guarded(registry)
    registry.on("POST", "uploads", complaint(503, "UNAVAILABLE", echo), forever=False)


def while_sending(registry: Scripted, echo: str) -> None:
    guarded(registry)
    for method in ("PUT", "PATCH"):
        registry.on(method, "uploads", complaint(503, "UNAVAILABLE", echo), forever=True)


def with_the_token(registry: Scripted, _: str) -> None:
    guarded(registry, X_Given=f"{TOKEN} and {REFRESH}", X_Auth_Token="another-t0ken")


def by_the_token_service(status: int) -> Setting:
    def set_up(registry: Scripted, echo: str) -> None:
        guarded(registry)
        registry._rules.clear()
        registry.on("GET", "^/token", complaint(status, "UNAUTHORIZED", echo), forever=True)

    return set_up


def in_the_realm(registry: Scripted, echo: str) -> None:
    challenge = f'Bearer realm="ftp://{echo}",service="reg"'
    registry.guard = lambda asked: Reply(401, {"WWW-Authenticate": challenge})


def in_the_challenge(registry: Scripted, echo: str) -> None:
    challenge = f'Basic realm="x", error_description="{echo}"'
    registry.guard = lambda asked: Reply(401, {"WWW-Authenticate": challenge})


def as_fields(registry: Scripted, echo: str) -> None:
    guarded(registry)
    fields = {"X-You": echo, "Server": echo, "Link": f"<{echo}>", "Set-Cookie": echo, "ETag": echo}

    def answer(asked: Asked) -> Reply:
        reply = registry.sound(asked)
        return Reply(reply.status, (*dict(reply.headers).items(), *fields.items()), reply.body)

    for method in ("HEAD", "GET", "POST", "PUT", "PATCH"):
        registry.on(method, "/v2/", answer, forever=True)


def redirected(status: int, to: str) -> Setting:
    def set_up(registry: Scripted, echo: str) -> None:
        guarded(registry)
        link = to.format(echo=urllib.parse.quote(echo, safe=""), url=registry.url)
        registry.on("POST", "uploads", Reply(status, {"Location": link}), forever=True)

    return set_up


def on_every_manifest(registry: Scripted, echo: str) -> None:
    guarded(registry)
    refused = complaint(400, "MANIFEST_INVALID", f"unsupported media type {echo}")
    registry.on("PUT", "manifests", refused, forever=True)


def cut_off(echo: str) -> str:
    """A body that is shown up to the middle of it."""
    return "x" * (200 - 1 - max(12, len(echo) // 2)) + echo


def cut_by_us(echo: str) -> str:
    """A body that is longer than what is read of it, and whose end is what is shown."""
    return " " * (ANSWER_MAX - 12) + echo + "x" * 100


def cut_page(echo: str) -> str:
    """A page whose first kilobytes alone are searched for words."""
    return "<p>" * 2726 + "<!---->" + html.escape(echo)


HTML = {"Content-Type": "text/html"}
PLACES: dict[str, tuple[Setting, int]] = {
    "a code": (refusing(lambda e: complaint(403, e)), 4),
    "a message": (refusing(lambda e: complaint(403, "DENIED", e)), 4),
    "a detail": (refusing(lambda e: complaint(403, "DENIED", "no", {"you": {"sent": [e]}})), 4),
    "a list": (refusing(lambda e: Reply(403, JSON, json.dumps({"errors": [e]}))), 4),
    "a proxy's message": (refusing(lambda e: Reply(403, JSON, json.dumps({"message": e}))), 4),
    "other JSON": (refusing(lambda e: Reply(403, JSON, json.dumps([e]))), 4),
    "words": (refusing(lambda e: Reply(403, (), f"no {e}!")), 4),
    "words that are cut": (refusing(lambda e: Reply(403, (), cut_off(e))), 4),
    "a message that is cut": (refusing(lambda e: complaint(403, "DENIED", cut_off(e))), 4),
    "a body that is cut": (refusing(lambda e: Reply(403, (), cut_by_us(e))), 4),
    "a page that is cut": (refusing(lambda e: Reply(403, HTML, cut_page(e))), 4),
    "a page's title": (refusing(lambda e: Reply(403, HTML, f"<title>{html.escape(e)}")), 4),
    "XML": (refusing(lambda e: Reply(403, (), f"<Error><Message>{html.escape(e)}</Message>")), 4),
    "a reason": (refusing(lambda e: Reply(raw=f"HTTP/1.1 403 {e}\r\n\r\n".encode())), 4),
    "a type": (refusing(lambda e: Reply(200, {"Content-Type": latin(e)}, "x")), 5),
    "no HTTP": (refusing(lambda e: Reply(raw=f"{e}\r\n\r\n".encode())), 5),
    "a session's path": (in_session, 4),
    "a session's state": (in_state, 4),
    "a retried request": (after_a_try, 0),
    "a retried body": (while_sending, 5),
    "the token's answer": (with_the_token, 0),
    "a token service's refusal": (by_the_token_service(401), 4),
    "a token service's failure": (by_the_token_service(503), 5),
    "a realm": (in_the_realm, 5),
    "a challenge": (in_the_challenge, 4),
    "fields of successes": (lambda r, e: as_fields(r, latin(e)), 0),
    "a redirect's path": (redirected(307, "/v2/{echo}"), 5),
    "a redirect's query": (redirected(307, "/v2/x?a={echo}&token={echo}"), 5),
    "a redirect elsewhere": (redirected(301, "http://127.0.0.2:1/{echo}"), 5),
    "a redirect to another host": (redirected(302, "http://{echo}/"), 5),
    "a manifest's refusal": (on_every_manifest, 5),
    "a digest": (refusing(lambda e: Reply(201, {"Docker-Content-Digest": latin(e)}), "PUT"), 0),
}  # fmt: skip


WITHOUT_TOKEN = ("a token service's refusal", "a token service's failure", "a realm", "a challenge")
"""Places that are reached before there is one."""
GIVEN = {"the password": WORD, "a token": TOKEN}
ECHOES = [
    (place, secret)
    for place in PLACES
    for secret in GIVEN
    if secret == "the password" or place not in WITHOUT_TOKEN
]


def latin(text: str) -> str:
    """As the bytes of UTF-8 in a header field are written by these servers."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize(("place", "secret"), ECHOES)
@pytest.mark.parametrize("progress", ["plain", "json"])
def test_no_secret_is_printed_wherever_it_comes_back(  # noqa: PLR0917 - fixtures
    registry: Scripted, image: str, capsys: Capture, place: str, progress: str, secret: str
) -> None:
    set_up, code = PLACES[place]
    set_up(registry, GIVEN[secret])
    ended, text = printed(registry, image, capsys, f"--progress={progress}")
    assert (ended, told(text)) == (code, [])
    assert "another-t0ken" not in text


@pytest.mark.parametrize(("place", "secret"), ECHOES)
def test_no_error_of_the_library_holds_a_secret(
    registry: Scripted, image: str, place: str, secret: str
) -> None:
    set_up, code = PLACES[place]
    set_up(registry, GIVEN[secret])
    said: list[str] = []
    heard: list[str] = []
    events: list[object] = []
    name = f"{registry.host}/team/app:1"
    with towline.Pusher(
        cache="none", retries=1, creds=(USER, WORD), log=heard.append, on_event=events.append
    ) as pusher:
        for destination in (name, [name, f"{registry.host}/team/app:2"]):
            try:
                said.append(repr(pusher.push(image, destination)))
            except towline.TowlineError as error:
                assert code
                said += everything_of(error)
    assert told("\n".join([*said, *heard, *map(repr, events)])) == []


def everything_of(error: BaseException) -> Iterator[str]:
    yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
    yield from map(str, error.args)
    yield from map(str, vars(error).values())
    yield from traceback.format_exception(error)
    yield pickle.dumps(error).decode("latin-1")
    if isinstance(error, towline.PartialFailure):
        for one in error.exceptions:
            yield from everything_of(one)


def test_what_is_given_beside_the_account_is_not_printed_either(
    registry: Scripted, image: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = {"proxy": "pr0xy wörd/x", "cache": "c4che@word", "key": "k3y of caches"}
    quoted = {whose: urllib.parse.quote(word, safe="") for whose, word in words.items()}
    monkeypatch.setenv("HTTPS_PROXY", f"http://someone:{quoted['proxy']}@proxy.test:3128")
    monkeypatch.setenv("TOWLINE_CACHE_KEY", words["key"])
    cache = f"redis://:{quoted['cache']}@127.0.0.1:1/0"
    echoes = [*words.values(), *quoted.values(), base64_of(f"someone:{words['proxy']}")]
    answer = complaint(403, "DENIED", f"you have {', '.join(echoes)}")
    registry.on("POST", "uploads", answer, forever=True)
    name = f"{registry.host}/team/app:1"
    assert main(["push", image, name, "--debug", "--cache", cache]) == 4
    text = "".join(capsys.readouterr())
    assert f"you have {', '.join(['[hidden]'] * len(echoes))}" in text
    assert [echo for echo in echoes if echo in text] == []


def test_a_helper_that_repeats_a_login_is_not_repeated(
    registry: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    helper = tmp_path / "docker-credential-box"
    helper.write_text("#!/bin/sh\necho cannot keep $(cat)\nexit 1\n")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "box"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("TOWLINE_PASSWORD", WORD)
    assert main(["login", registry.host, "-u", USER, "--debug"]) == 4
    text = "".join(capsys.readouterr())
    assert "cannot keep" in text
    assert told(text) == []
