"""Names that analysts and other tools expect for numbers in a flow."""

from __future__ import annotations

from typing import Final

PROTOCOLS: Final = {
    1: "ICMP",
    2: "IGMP",
    6: "TCP",
    17: "UDP",
    41: "IPv6",
    47: "GRE",
    50: "ESP",
    51: "AH",
    58: "IPv6-ICMP",
    132: "SCTP",
}
"""IANA protocol numbers, spelt as in EVE JSON."""

TLS_VERSIONS: Final = {
    0x0002: "SSLv2",
    0x0300: "SSLv3",
    0x0301: "TLSv1",
    0x0302: "TLS 1.1",
    0x0303: "TLS 1.2",
    0x0304: "TLS 1.3",
    0xFEFF: "DTLS 1.0",
    0xFEFD: "DTLS 1.2",
    0xFEFC: "DTLS 1.3",
}
"""TLS and DTLS wire versions, spelt as in EVE JSON."""


def protocol_name(number: int) -> str:
    """Return the name of an IANA protocol number, three digits where it has none here."""
    return PROTOCOLS.get(number, f"{number:03d}")


def tls_version_name(version: int) -> str:
    """Return the name of a TLS wire version, hexadecimal where it has none."""
    return TLS_VERSIONS.get(version, f"0x{version:04x}")
