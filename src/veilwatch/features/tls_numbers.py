"""Numbers of the TLS registries (IANA TLS Parameters and ExtensionType Values) features use."""

from __future__ import annotations

from typing import Final

CIPHERS: Final = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
    0xC02B: "ECDHE_ECDSA_AES_128_GCM",
    0xC02F: "ECDHE_RSA_AES_128_GCM",
    0xCCA9: "ECDHE_ECDSA_CHACHA20",
    0xC009: "ECDHE_ECDSA_AES_128_CBC_SHA",
    0xC013: "ECDHE_RSA_AES_128_CBC_SHA",
    0xC023: "ECDHE_ECDSA_AES_128_CBC_SHA256",
    0x009E: "DHE_RSA_AES_128_GCM",
    0x0033: "DHE_RSA_AES_128_CBC_SHA",
    0x009C: "RSA_AES_128_GCM",
    0x002F: "RSA_AES_128_CBC_SHA",
    0x000A: "RSA_3DES_CBC",
    0x0005: "RSA_RC4_128_SHA",
    0x0004: "RSA_RC4_128_MD5",
    0x0003: "RSA_EXPORT_RC4_40",
    0x0013: "DHE_DSS_3DES_CBC",
    0x00FF: "EMPTY_RENEGOTIATION_INFO",
    0x5600: "FALLBACK",
}
"""Cipher suites whose offer tells TLS stacks apart (IANA TLS parameters)."""

EXTENSIONS: Final = {
    0x0000: "server_name",
    0x0005: "status_request",
    0x000A: "supported_groups",
    0x000B: "ec_point_formats",
    0x000D: "signature_algorithms",
    0x0010: "alpn",
    0x0012: "signed_certificate_timestamp",
    0x0015: "padding",
    0x0016: "encrypt_then_mac",
    0x0017: "extended_main_secret",
    0x001B: "compress_certificate",
    0x0023: "session_ticket",
    0x0029: "pre_shared_key",
    0x002B: "supported_versions",
    0x002D: "psk_key_exchange_modes",
    0x0033: "key_share",
    0x3374: "next_protocol_negotiation",
    0x7550: "channel_id",
    0xFF01: "renegotiation_info",
}
"""Extensions whose presence tells TLS stacks apart (IANA TLS ExtensionType values)."""

GREASE: Final = tuple(0x1010 * k + 0x0A0A for k in range(16))
"""Values that mean nothing and are offered so that servers learn to skip them (RFC 8701)."""

EPHEMERAL: Final = tuple(
    number
    for first, last in (
        *((0x0011, 0x0016), (0x002D, 0x002D), (0x0032, 0x0033), (0x0038, 0x0039)),
        *((0x0040, 0x0040), (0x0044, 0x0045), (0x0067, 0x0067), (0x006A, 0x006B)),
        *((0x0087, 0x0088), (0x008E, 0x0091), (0x0099, 0x009A), (0x009E, 0x009F)),
        *((0x00A2, 0x00A3), (0x00AA, 0x00AB), (0x00B2, 0x00B5), (0x00BD, 0x00BE)),
        *((0x00C3, 0x00C4), (0x00C6, 0x00C7), (0x1301, 0x1305), (0xC006, 0xC00A)),
        *((0xC010, 0xC014), (0xC023, 0xC024), (0xC027, 0xC028), (0xC02B, 0xC02C)),
        *((0xC02F, 0xC030), (0xC033, 0xC03B), (0xC042, 0xC045), (0xC048, 0xC049)),
        *((0xC04C, 0xC04D), (0xC052, 0xC053), (0xC056, 0xC057), (0xC05C, 0xC05D)),
        *((0xC060, 0xC061), (0xC066, 0xC067), (0xC06C, 0xC06D), (0xC070, 0xC073)),
        *((0xC076, 0xC077), (0xC07C, 0xC07D), (0xC080, 0xC081), (0xC086, 0xC087)),
        *((0xC08A, 0xC08B), (0xC090, 0xC091), (0xC096, 0xC097), (0xC09A, 0xC09B)),
        *((0xC09E, 0xC09F), (0xC0A2, 0xC0A3), (0xC0A6, 0xC0A7), (0xC0AA, 0xC0AF)),
        *((0xCC13, 0xCC15), (0xCCA8, 0xCCAA), (0xCCAC, 0xCCAD), (0xD001, 0xD005)),
    )
    for number in range(first, last + 1)
)
"""Cipher suites with an ephemeral, authenticated key exchange: DHE, ECDHE and TLS 1.3."""
