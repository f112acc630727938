"""What is behind a PROXY header, and what has none."""

from __future__ import annotations

import pytest

from veilwatch.traffic.handshake.proxy import without_proxy_headers

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.10 56324 443\r\n",
        SIGNATURE + b"\x20\x00\0\0",
        SIGNATURE + b"\x21\x11\0\x0c" + bytes(12),
        b"PROXY UNKNOWN\r\n" + SIGNATURE + b"\x20\x00\0\0",
        4 * (SIGNATURE + b"\x20\x00\0\0"),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"\x16\x03\x01\n", b"GET / HTTP/1.1\r\n"])
def test_the_header_is_taken_off(header: bytes, behind: bytes) -> None:
    assert without_proxy_headers(header + behind) == behind


@pytest.mark.parametrize("stream", [b"PROXY", b"PROXI \r\n", SIGNATURE[:11], SIGNATURE + b"\x21"])
def test_what_is_no_header_stays(stream: bytes) -> None:
    assert without_proxy_headers(stream) == stream


def test_a_header_that_was_cut_has_nothing_behind() -> None:
    assert without_proxy_headers(SIGNATURE + b"\x21\x11\0\x0c" + bytes(3)) == b""


def test_more_headers_than_load_balancers_add_stay() -> None:
    header = b"PROXY UNKNOWN\r\n"
    assert without_proxy_headers(6 * header + b"GET /") == 2 * header + b"GET /"
