"""JA3 and JA4 against published examples and against a second way to write them down."""

from __future__ import annotations

import hashlib

import pytest

from veilwatch.traffic.handshake.ja3 import ja3, ja3s
from veilwatch.traffic.handshake.ja4 import QUIC, TCP, ja4
from veilwatch.traffic.handshake.tls import ClientHello, ServerHello

CHROME = ClientHello(
    length=508,
    whole=True,
    legacy_version=0x0303,
    ciphers=(
        0x3A3A, 0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC013,
        0xC014, 0x009C, 0x009D, 0x002F, 0x0035,
    ),
    extensions=(
        0x2A2A, 0x001B, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002D, 0x000D, 0x0005, 0x0023,
        0x0012, 0x002B, 0xFF01, 0x000B, 0x000A, 0x0015, 0xBABA,
    ),
    groups=(0x8A8A, 0x001D, 0x0017, 0x0018),
    point_formats=(0,),
    signature_algorithms=(0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601),
    supported_versions=(0x6A6A, 0x0304, 0x0303),
    server_name=b"example.org",
    alpn=(b"h2", b"http/1.1"),
)  # fmt: skip


def changed(**fields: object) -> ClientHello:
    values = {name: getattr(CHROME, name) for name in CHROME.__slots__}
    return ClientHello(**(values | fields))


def test_ja4_of_the_description() -> None:
    assert ja4(CHROME) == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    assert ja4(CHROME, QUIC) == "q13d1516h2_8daaf6152771_e5627efa2ab1"


def test_ja4_without_signature_algorithms_has_no_underscore() -> None:
    assert ja4(changed(signature_algorithms=())).endswith("_6d807ffa2a79")


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"h", "hh"),
        (b"", "00"),
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"\x30\xab", "3b"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
    ],
)
def test_ja4_protocol_ends(name: bytes, ends: str) -> None:
    assert ja4(changed(alpn=(name,)), TCP)[8:10] == ends


def test_ja4_counts_stop_at_99() -> None:
    many = changed(ciphers=tuple(range(0x1000, 0x1080)), extensions=(), alpn=())
    assert ja4(many).startswith("t13i990000_")
    assert ja4(many).endswith("_000000000000")


def test_ja4_of_an_unknown_version() -> None:
    assert ja4(changed(supported_versions=(0x7F1C, 0x0303))).startswith("t00d")


def test_ja3_of_the_description() -> None:
    hello = ClientHello(
        length=200,
        whole=True,
        legacy_version=769,
        ciphers=(47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4),
        extensions=(0, 10, 11),
        groups=(23, 24, 25),
        point_formats=(0,),
    )
    assert ja3(hello) == "ada70206e40642a3e4461f35503241d5"
    hello.extensions, hello.groups, hello.point_formats = (), (), ()
    hello.ciphers = (4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99)
    assert ja3(hello) == "de350869b8c85de67a350c8d186f11e6"


def test_ja3_ignores_grease() -> None:
    text = (
        "771,4865-4866-4867-49195-49199-49196-49200-52393-52392-49171-49172-156-157-47-53,"
        "27-0-51-16-17513-23-45-13-5-35-18-43-65281-11-10-21,29-23-24,0"
    )
    assert ja3(CHROME) == hashlib.md5(text.encode()).hexdigest()


def test_ja3s() -> None:
    hello = ServerHello(
        length=70, legacy_version=769, retry=False, cipher=47, extensions=(65281, 0, 11, 35, 5, 16)
    )
    assert ja3s(hello) == hashlib.md5(b"769,47,65281-0-11-35-5-16").hexdigest()
    hello.extensions = ()
    assert ja3s(hello) == hashlib.md5(b"769,47,").hexdigest()


def test_cut_hellos_have_none() -> None:
    assert ja3(changed(whole=False)) == ja4(changed(whole=False)) == ""
