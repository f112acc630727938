"""Messages are recognised by what they begin with."""

from __future__ import annotations

from typing import get_args

import pytest

from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.messages import TcpForm, UdpForm, datagram, tcp_message

OPENINGS = {
    "http": (b"GET /", b"HTTP/1.1"),
    "dcerpc": (b"\5\0\x0b", b"\5\0\x0c"),
    "rdp": (b"\3\0\0\x13", b"\3\0\0\x13"),
    "ssh": (b"SSH-2.0-", b"SSH-2.0-"),
    "mqtt": (b"\x10", b"\x20\2\0\0"),
    "ldap": (b"\x30", b"\x30"),
    "kerberos": (b"\0\0", b"\0\0"),
}


@pytest.mark.parametrize("form", get_args(TcpForm))
def test_openings_over_tcp(form: TcpForm) -> None:
    for request in (True, False):
        text = tcp_message(form, 0, 400, Draw(form), request=request)
        assert text.startswith(OPENINGS.get(form, (b"", b""))[not request])


@pytest.mark.parametrize("form", get_args(UdpForm))
@pytest.mark.parametrize("size", [1, 60, 1200])
def test_every_datagram_fits_a_packet(form: UdpForm, size: int) -> None:
    for number in range(3):
        for request in (True, False):
            assert 0 < len(datagram(form, number, size, Draw(1), request=request)) < 1400


def test_large_requests_bring_something_and_say_how_much() -> None:
    text = tcp_message("http", 0, 5000, Draw(1), request=True)
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith(b"POST ") and f"Content-Length: {len(body)}".encode() in head
    assert len(text) > 4900
