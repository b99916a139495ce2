"""What answers say of ranges, pages and addresses is understood or passed over."""

from __future__ import annotations

import contextlib
import string

from hypothesis import given
from hypothesis import strategies as st

from towline.errors import RegistryError
from towline.knowledge.base import SavedSession, Signer
from towline.knowledge.store import read, written
from towline.registry.blobs import session_url
from towline.registry.listings import next_page
from towline.registry.upload.session import range_end
from towline.wire.message import Headers, Response, parse_url

ASKED = parse_url("https://reg.example/v2/app/blobs/uploads/1?_state=a%2Bb")
NUMBERS = st.integers().map(str) | st.text(string.digits + "-+ \u0663", max_size=30)
LINES = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60)
PARTS = st.sampled_from(
    [*'<>;,"%', "..", "//", "/v2/", "http://", "?n=1&last=", "rel=next", 'rel="next"']
)


def answered(name: str, value: str) -> Response:
    return Response(202, "Accepted", Headers([(name, value)]), ASKED)


@given(st.sampled_from(["", "bytes=", "bytes ", "0-"]), NUMBERS, NUMBERS)
def test_a_range_is_a_number_of_bytes_or_nothing(unit: str, first: str, last: str) -> None:
    for text in (f"{unit}{first}-{last}", f"{unit}0-{last}"):
        assert 0 <= range_end(answered("Range", text)) <= 10**18


@given(st.lists(PARTS | LINES, max_size=20).map("".join))
def test_a_next_page_is_a_path_at_the_registry_or_none(link: str) -> None:
    page = next_page(answered("Link", link))
    assert page is None or page.startswith("/")


@given(st.lists(PARTS | LINES, max_size=20).map("".join))
def test_a_session_is_at_an_address_or_refused_in_words(location: str) -> None:
    with contextlib.suppress(RegistryError):
        url = session_url(answered("Location", location), "push a blob")
        assert url.scheme == "https" or url.host == ASKED.host
        assert all("!" <= character <= "~" for character in url.target)


@given(
    st.builds(
        SavedSession, st.text(), st.text(), st.text(), st.text(), st.integers(), st.text(),
        st.integers(min_value=0), st.integers(), st.floats(allow_nan=False),
    ),
    st.text(),
)  # fmt: skip
def test_a_session_is_read_as_it_was_written(session: SavedSession, key: str) -> None:
    signer = Signer(b"a key", shared=True)
    assert read(written(session, key, signer), key, signer) == session._replace(learned=False)


@given(st.text() | st.binary())
def test_no_text_of_a_store_is_more_than_no_session(text: str | bytes) -> None:
    assert read(text, "key", Signer(b"a key", shared=False)) is None
