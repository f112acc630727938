"""Text of strangers: escaped once, bounded, and never another name than it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.handshake.streams import head
from veilwatch.schema.flows import HEAD_BYTES
from veilwatch.traffic.handshake import read_heads
from veilwatch.traffic.handshake.facts import MAX_NUMBERS
from veilwatch.traffic.handshake.text import (
    CUT,
    MAX_ALPN_NAME,
    MAX_ALPN_NAMES,
    MAX_NAME,
    MAX_TEXT,
    bounded_text,
    escape,
    escape_protocols,
    unescape,
)

LARGEST_ROW = 24_000
"""Characters of the handshake's columns of the most hostile flow as JSON. The lists of numbers take
most of it: as many as fit into a head."""


@given(st.binary(max_size=MAX_NAME))
def test_what_is_escaped_can_be_undone(raw: bytes) -> None:
    shown = escape(raw)
    assert unescape(shown) == raw
    assert shown.isascii() and shown.isprintable() and " " not in shown
    assert not shown.endswith(CUT)


@given(st.binary(min_size=1, max_size=2 * MAX_NAME), st.integers(1, MAX_NAME))
def test_a_cut_name_is_no_whole_name(raw: bytes, limit: int) -> None:
    shown = escape(raw, limit)
    assert shown.endswith(CUT) is (len(raw) > limit)
    assert len(shown) <= 4 * limit + len(CUT)
    if len(raw) > limit:
        assert shown != escape(raw[:limit], limit)
        assert unescape(shown.removesuffix(CUT)) == raw[:limit]


def test_even_a_name_that_looks_cut_is_told_apart() -> None:
    assert escape(b"a\\...") == "a\\092..."
    assert escape(b"a" * 255) == "a" * 255
    assert escape(b"a" * 256) == "a" * 255 + CUT


@pytest.mark.parametrize("text", ["\\256", "\\999", "\\12", "\\", "\\...", "\\.", "é\\x41"])
def test_what_is_no_escape_stays(text: str) -> None:
    assert unescape(text) == text.encode()


@given(st.text(max_size=2 * MAX_TEXT))
def test_other_text_is_bounded_and_printable(text: str) -> None:
    shown = bounded_text(text)
    assert shown.isprintable()
    assert len(shown) == min(len(text), MAX_TEXT) + len(CUT) * (len(text) > MAX_TEXT)


@given(st.lists(st.binary(min_size=1, max_size=255), max_size=40))
def test_protocols_are_bounded(names: list[bytes]) -> None:
    shown = escape_protocols(tuple(names))
    assert len(shown) <= MAX_ALPN_NAMES + 1
    assert (shown[-1:] == [CUT]) is (len(names) > MAX_ALPN_NAMES)
    assert all(len(name) <= 4 * MAX_ALPN_NAME + len(CUT) for name in shown)


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content


def counted(content: bytes, width: int = 2) -> bytes:
    return len(content).to_bytes(width, "big") + content


def hello(ciphers: int, name: bytes, protocols: list[bytes], more: bytes = b"") -> bytes:
    """A ClientHello in as many records as it takes."""
    extensions = extension(0, counted(b"\0" + counted(name)))
    extensions += extension(16, counted(b"".join(counted(p, 1) for p in protocols))) + more
    suites = b"".join((k % 0xFFFF).to_bytes(2, "big") for k in range(ciphers))
    body = b"\x03\x03" + bytes(32) + b"\0" + counted(suites) + b"\x01\0" + counted(extensions)
    message = b"\x01" + counted(body, 3)
    parts = [message[k : k + 16_000] for k in range(0, len(message), 16_000)]
    return b"".join(b"\x16\x03\x01" + counted(part) for part in parts)


def facts(client: bytes) -> dict[str, Any]:
    return read_heads(head(client)).row(0, named=True)


def test_a_server_name_of_8000_bytes() -> None:
    found = facts(hello(1, b"\xff" * 8000, [b"h2"]))
    assert found["tls_sni"] == "\\255" * MAX_NAME + CUT
    assert found["tls_alpn"] == ["h2"]
    assert found["ja4"].startswith("t12d")
    assert facts(hello(1, b"a" * 255, []))["tls_sni"] == "a" * 255


def test_lists_end_and_fingerprints_do_not() -> None:
    few, many = facts(hello(MAX_NUMBERS, b"a", [])), facts(hello(MAX_NUMBERS + 1, b"a", []))
    assert len(few["tls_ciphers"]) == len(many["tls_ciphers"]) == MAX_NUMBERS
    assert few["ja3"] != many["ja3"]
    assert len(many["ja3"]) == 32 and len(many["ja4"]) == 36


@examples(100)
@given(st.data())
def test_no_hello_makes_a_large_row(data: st.DataObject) -> None:
    """Any division of the largest head: ciphers, a name, protocols, other extensions."""
    room = HEAD_BYTES - 400
    ciphers = data.draw(st.integers(0, room // 2))
    name = data.draw(st.integers(0, room - 2 * ciphers))
    left = room - 2 * ciphers - name
    size = data.draw(st.integers(1, 255))
    protocols = [b"\xfe" * size] * data.draw(st.integers(0, left // (size + 1)))
    left -= len(protocols) * (size + 1)
    kind = data.draw(st.sampled_from([10, 11, 13, 43]))
    groups = b"".join((0xF000 + k).to_bytes(2, "big") for k in range(left // 2))
    more = extension(kind, counted(groups[:254], 1) if kind in (11, 43) else counted(groups))
    more += extension(0xFFFF, b"") * data.draw(st.integers(0, 20))
    found = facts(hello(ciphers, b"\xff" * name, protocols, more))
    assert found["tls_client_hello_bytes"] > 0
    assert len(json.dumps(found)) < LARGEST_ROW
    texts = [value for value in found.values() if isinstance(value, str)]
    assert sum(map(len, texts)) < 4 * MAX_NAME + 500
