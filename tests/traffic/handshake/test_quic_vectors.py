"""The samples of RFC 9001, appendix A, and RFC 9369, appendix A."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.traffic.handshake.quic_peer import DCID, SCID, V1, V2, Keys, Version, keys, protect
from tests.traffic.handshake.streams import datagram_head
from veilwatch.traffic.handshake import read_heads
from veilwatch.traffic.handshake.quic import RETRY, long_packets
from veilwatch.traffic.handshake.quic_initial import InitialKeys, salts

CLIENT_FRAMES = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868"
    "04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578"
    "616d706c652e636f6dff01000100000a00080006001d00170018001000070005"
    "04616c706e000500050100000000003300260024001d00209370b2c9caa47fba"
    "baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400"
    "0d0010000e0403050306030203080408050806002d00020101001c0002400100"
    "3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000"
    "75300901100f088394c8f03e51570806048000ffff"
).ljust(1162, b"\0")
SERVER_FRAMES = bytes.fromhex(
    "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf739"
    "88cfc79825df566dc5430b9a045a1200130100002e00330024001d00209d3c94"
    "0d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00"
    "020304"
)


@dataclass(frozen=True)
class Sample:
    version: Version
    client_keys: tuple[str, str, str, str]
    server_keys: tuple[str, str, str, str]
    client_header: str
    client_begins: str
    client_ends: str
    server_header: str
    server_packet: str
    retry_packet: str


RFC_9001 = Sample(
    V1,
    (
        "c00cf151ca5be075ed0ebfb5c80323c42d6b7db67881289af4008f1f6c357aea",
        "1f369613dd76d5467730efcbe3b1a22d",
        "fa044b2f42a3fd3b46fb255c",
        "9f50449e04a0e810283a1e9933adedd2",
    ),
    (
        "3c199828fd139efd216c155ad844cc81fb82fa8d7446fa7d78be803acdda951b",
        "cf3a5331653c364c88f0f379b6067e37",
        "0ac1493ca1905853b0bba03e",
        "c206b8d9b9f0f37644430b490eeaa314",
    ),
    "c300000001088394c8f03e5157080000449e00000002",
    "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92",
    "7e78bfe706ca4cf5e9c5453e9f7cfd2b8b4c8d169a44e55c88d4a9a7f9474241e221af44860018ab0856972e194cd934",
    "c1000000010008f067a5502a4262b50040750001",
    "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a"
    "5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf73c3ec2493a1839b3"
    "dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84"
    "022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc4"
    "2158407dd074ee",
    "ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba",
)
RFC_9369 = Sample(
    V2,
    (
        "14ec9d6eb9fd7af83bf5a668bc17a7e283766aade7ecd0891f70f9ff7f4bf47b",
        "8b1a0bc121284290a29e0971b5cd045d",
        "91f73e2351d8fa91660e909f",
        "45b95e15235d6f45a6b19cbcb0294ba9",
    ),
    (
        "0263db1782731bf4588e7e4d93b7463907cb8cd8200b5da55a8bd488eafc37c1",
        "82db637861d55e1d011f19ea71d5d2a7",
        "dd13c276499c0249d3310652",
        "edf6d05c83121201b436e16877593c3a",
    ),
    "d36b3343cf088394c8f03e5157080000449e00000002",
    "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485dd04de806071bf03dceebfa162",
    "6f4c4938ae79324dc402894b44faf8afbab35282ab659d13c93f70412e85cb199a37ddec600545473cfb5a05e08d0b20"
    "9973b2172b4d21fb69745a262ccde96ba18b2faa745b6fe189cf772a9f84cbfc",
    "d16b3343cf0008f067a5502a4262b50040750001",
    "dc6b3343cf0008f067a5502a4262b5004075d92faaf16f05d8a4398c47089698"
    "baeea26b91eb761d9b89237bbf87263017915358230035f7fd3945d88965cf17"
    "f9af6e16886c61bfc703106fbaf3cb4cfa52382dd16a393e42757507698075b2"
    "c984c707f0a0812d8cd5a6881eaf21ceda98f4bd23f6fe1a3e2c43edd9ce7ca8"
    "4bed8521e2e140",
    "cf6b3343cf0008f067a5502a4262b5746f6b656ec8646ce8bfe33952d955543665dcc7b6",
)
SAMPLES = pytest.mark.parametrize("sample", [RFC_9001, RFC_9369], ids=["RFC 9001", "RFC 9369"])


def packets(sample: Sample) -> tuple[bytes, bytes]:
    """The protected packets of client and server, built from the published plain ones."""
    client, server = (keys(sample.version, DCID, side) for side in ("client", "server"))
    return (
        protect(bytes.fromhex(sample.client_header), CLIENT_FRAMES, client),
        protect(bytes.fromhex(sample.server_header), SERVER_FRAMES, server),
    )


@SAMPLES
def test_the_peer_builds_what_is_published(sample: Sample) -> None:
    for side, expected in (("client", sample.client_keys), ("server", sample.server_keys)):
        assert keys(sample.version, DCID, side) == Keys(*(bytes.fromhex(k) for k in expected))
    client, server = packets(sample)
    assert client.hex().startswith(sample.client_begins)
    assert client.hex().endswith(sample.client_ends)  # with the tag over all of it
    assert len(client) == 1200
    assert server.hex() == sample.server_packet


@SAMPLES
def test_frames_of_both_packets(sample: Sample) -> None:
    (salt,) = salts(sample.version.number)
    for content, frames, server in zip(
        packets(sample), (CLIENT_FRAMES, SERVER_FRAMES), (False, True), strict=True
    ):
        (packet,) = long_packets(content)
        fitting = InitialKeys(sample.version.number, salt, DCID, server=server)
        other = InitialKeys(sample.version.number, salt, DCID, server=not server)
        assert fitting.open(packet) == frames
        assert other.open(packet) is None


@SAMPLES
def test_facts_of_both_packets(sample: Sample) -> None:
    client, server = packets(sample)
    facts = read_heads(datagram_head([client], [server])).row(0, named=True)
    assert facts["quic_version"] == facts["quic_server_version"] == sample.version.number
    assert (facts["quic_dcid"], facts["quic_scid"]) == (DCID.hex(), SCID.hex())
    assert (facts["quic_initial_opened"], facts["quic_retry"]) == (True, False)
    assert facts["tls_sni"] == "example.com"
    assert facts["tls_alpn"] == ["alpn"]
    assert facts["tls_ciphers"] == [0x1301, 0x1302]
    assert facts["tls_client_hello_bytes"] == 0xED
    assert facts["tls_client_version"] == facts["tls_version"] == 0x0304
    assert facts["tls_cipher"] == 0x1301
    assert facts["tls_server_extensions"] == [51, 43]
    assert facts["tls_record_version"] == 0
    assert facts["ja4"].startswith("q13d0211an_")


@SAMPLES
def test_the_retry(sample: Sample) -> None:
    (packet,) = long_packets(bytes.fromhex(sample.retry_packet))
    assert (packet.kind, packet.version) == (RETRY, sample.version.number)
    assert (packet.dcid, packet.scid) == (b"", SCID)
    assert packet.token_bytes == len(b"token")
    client = packets(sample)[0]
    facts = read_heads(datagram_head([client], [packet.content])).row(0, named=True)
    assert (facts["quic_retry"], facts["quic_scid"]) == (True, SCID.hex())
