"""Where the fuzzers begin: small valid inputs that the project builds itself."""

from __future__ import annotations

from tests.traffic.capture import build
from tests.traffic.decode.test_fuzz import seeds
from tests.traffic.subscriber import build as control

FRAMES = [frame for link, frame in seeds() if link == 1]

CAPTURES = [build.pcap([(1, 2, b"frame"), (3, 4, b"another")], order=order) for order in "<>"] + [
    build.section(order)
    + build.interface(order, 1, 0, 9, None)
    + build.enhanced(10**18, b"frame", order, 0, b"")
    for order in "<>"
]

HELLO = bytes.fromhex(
    "16030100580100005403030000000000000000000000000000000000000000000000000000000000000000"
    "000002130101000029000000100012000f00000c6578616d706c652e746573740010000500030268320"
    "02b0003020304"
)
QUERY = bytes.fromhex("0030123401000001000000000000076578616d706c6504746573740000010001") + bytes(
    18
)

HANDSHAKES = [
    bytes([0, len(HELLO), 0]) + HELLO,
    bytes([1, 0, 5]) + (1200).to_bytes(2, "big") + b"\xc3\0\0\0\x01\x08" + bytes(1194),
    bytes([2, len(QUERY), 0]) + QUERY,
]


def _message(port: int, data: bytes) -> bytes:
    return bytes([port, len(data) & 0xFF, len(data) >> 8]) + data


CONTROL = [
    _message(
        0, control.gtpv2(32, 0, 1, control.apn("internet"), control.fteid(10, 5, "192.0.2.1"))
    ),
    _message(1, control.pfcp(50, 0, 1, control.fseid(1, "192.0.2.1"))),
    _message(0, control.gtpv1(16, 0, 1, control.tlv(131, b"\x08internet"))),
]
