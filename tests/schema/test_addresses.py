"""Addresses in the one form of the tables."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from veilwatch.schema.addresses import address_text


@given(st.ip_addresses(v=4))
def test_both_forms_of_an_ipv4_address_are_written_alike(address: IPv4Address) -> None:
    mapped = bytes(10) + b"\xff\xff" + address.packed
    assert address_text(address.packed) == address_text(mapped) == str(address)


@given(st.ip_addresses(v=6))
def test_ipv6_as_the_system_writes_it(address: IPv6Address) -> None:
    text = address_text(address.packed)
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    assert socket.inet_pton(family, text) == address.packed[-len(socket.inet_pton(family, text)) :]
    assert (":" in text) == (address.ipv4_mapped is None)
