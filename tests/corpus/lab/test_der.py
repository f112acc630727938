"""Lengths of DER, and messages about as long as asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from veilwatch.corpus.lab import der
from veilwatch.corpus.lab.draw import Draw


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65_535, 70_000])
def test_lengths(size: int) -> None:
    value = der.tlv(0x04, bytes(size))
    first = value[1]
    at = 2 if first < 0x80 else 2 + (first & 0x7F)
    length = first if first < 0x80 else int.from_bytes(value[2:at], "big")
    assert length == size == len(value) - at


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 2**31])
def test_numbers_are_not_negative(value: int) -> None:
    text = der.integer(value)[2:]
    assert int.from_bytes(text, "big", signed=True) == value


@pytest.mark.parametrize("size", [500, 1500])
@pytest.mark.parametrize("request_", [True, False])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("message", [der.kerberos, der.ldap])
def test_messages_are_about_as_long_as_asked(
    message: Callable[..., bytes], number: int, request_: bool, size: int
) -> None:
    text = message(number, size, Draw(1), request=request_)
    shortest = 20 if message is der.ldap and not request_ and number == 0 else size * 0.7
    assert shortest < len(text) < size * 1.3
