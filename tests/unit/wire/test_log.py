from __future__ import annotations

import pytest

from towline.wire.exchange import log_answer, log_request
from towline.wire.message import Headers, Request, Response, parse_url
from towline.wire.secrets import field


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", "Bearer abc.def", "Bearer <hidden>"),
        ("proxy-authorization", "Basic c2VjcmV0", "Basic <hidden>"),
        ("X-Auth-Token", "abc", "<hidden>"),
        ("X-Amz-Security-Token", "abc", "<hidden>"),
        ("X-Next", "https://h/x?n=1&sig=abc", "https://h/x?n=1&sig=<hidden>"),
        ("Set-Cookie", "sid=1; Path=/", "<hidden>"),
        ("Location", "/x?_state=abc%3D&digest=sha256:1", "/x?_state=<hidden>&digest=sha256:1"),
        ("Location", "/x?tag=1.2&tag=1", "/x?tag=1.2&tag=1"),
        (
            "Location",
            "https://s3/x?X-Amz-Signature=a&b=",
            "https://s3/x?X-Amz-Signature=<hidden>&b=",
        ),
        ("Link", '</v2/_catalog?last=a&n=2>; rel="next"', '</v2/_catalog?last=a&n=2>; rel="next"'),
        ("Content-Type", "text/plain", "text/plain"),
    ],
)
def test_a_fields_secrets_are_hidden(name: str, value: str, shown: str) -> None:
    assert field(name, value) == shown


def test_requests_and_answers_are_told_without_bodies() -> None:
    lines: list[str] = []
    url = parse_url("https://h/token?scope=a:b&password=x")
    log_request(lines.append, Request("POST", url, (("A", "b"),), b"refresh_token=secret"))
    answer = Response(200, "OK", Headers([("C", "d")]), url, "POST", b'{"token":"secret"}')
    log_answer(lines.append, answer, 0.5)
    assert lines == [
        "> POST https://h/token?scope=a:b&password=<hidden>",
        ">   A: b",
        ">   (20 bytes)",
        "< 200 OK (0.500 s, to POST)",
        "<   C: d",
    ]
    assert "secret" not in repr(answer)
