"""What the formats say, in files small enough to check by eye."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.capture import build
from veilwatch.capture import open_captures
from veilwatch.capture.clock import MAX_TIME_NS
from veilwatch.capture.pcapng import MAX_BLOCK
from veilwatch.schema.captures import MAX_COMMENT_CHARS, MAX_COMMENTS, FileReport
from veilwatch.schema.packets import BLOCK_RECORDS, MAX_CAPTURED

NS = 1_000_000_000


def read(path: Path, data: bytes) -> tuple[list[build.Record], FileReport]:
    path.write_bytes(data)
    stream = open_captures([path])
    return build.read_all(stream), stream.report.files[0]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1), (0xA1B2CD34, 1000)]
)
def test_dialects_of_pcap(tmp_path: Path, order: str, magic: int, unit: int) -> None:
    data = build.pcap([(build.T0, 25, b"first"), (1, 0, b"")], order=order, magic=magic)
    records, report = read(tmp_path / "misnamed.txt", data)
    assert records == [
        build.Record(1, build.T0 * NS + 25 * unit, 12, 1, 0, b"first"),
        build.Record(2, NS, 7, 1, 0, b""),
    ]
    assert report == FileReport(
        name=str(tmp_path / "misnamed.txt"),
        format="pcap",
        packets=2,
        bytes=len(data),
        first_ns=NS,
        last_ns=build.T0 * NS + 25 * unit,
        interfaces=[1],
    )


@pytest.mark.parametrize(
    ("network", "link"),
    [(0x3000_0001, 1), (0x0400_0071, 113), (0x0001_0001, 0xFFFF)],
    ids=["FCS length", "FCS flag", "a link type beyond 16 bits is not Ethernet"],
)
def test_link_type_of_pcap(tmp_path: Path, network: int, link: int) -> None:
    records, _ = read(tmp_path / "a", build.pcap([(1, 1, b"x")], network=network))
    assert records[0].link == link


def test_pcap_before_2_3_has_its_lengths_swapped(tmp_path: Path) -> None:
    data = build.pcap([(1, 1, b"")], version=(2, 2))[:-8] + struct.pack("<II", 90, 3) + b"abc"
    records, _ = read(tmp_path / "a", data)
    assert records == [build.Record(1, NS + 1000, 90, 1, 0, b"abc")]


def test_sections_of_both_byte_orders_restart_the_interfaces(tmp_path: Path) -> None:
    data = build.section("<") + build.interface("<", 1) + build.interface("<", 113, resolution=9)
    data += build.enhanced(5, b"a", index=1) + build.enhanced(5, b"b")
    data += build.section(">") + build.interface(">", 101, resolution=0x80 | 10, offset=100)
    data += build.enhanced(1024 * 7 + 512, b"c", ">") + build.obsolete(2048, b"d", ">")
    records, report = read(tmp_path / "a", data)
    assert records == [
        build.Record(1, 5, 8, 113, 1, b"a"),
        build.Record(2, 5000, 8, 1, 0, b"b"),
        build.Record(3, 107 * NS + NS // 2, 8, 101, 0, b"c"),
        build.Record(4, 102 * NS, 8, 101, 0, b"d"),
    ]
    assert report.interfaces == [1, 113, 101]
    assert report.format == "pcapng"
    assert report.fault == ""


def test_simple_packet_takes_snap_length_and_the_time_before_it(tmp_path: Path) -> None:
    data = build.section() + build.interface(link=1, snaplen=4) + build.simple(9, b"abcd")
    data += build.enhanced(77, b"e") + build.simple(3, b"xyz")
    records, _ = read(tmp_path / "a", data)
    assert records == [
        build.Record(1, 0, 9, 1, 0, b"abcd"),
        build.Record(2, 77_000, 8, 1, 0, b"e"),
        build.Record(3, 77_000, 3, 1, 0, b"xyz"),
    ]


def test_blocks_without_packets_are_counted_however_long(tmp_path: Path) -> None:
    data = build.section() + build.interface()
    data += build.block("<", 5, b"x" * 30) + build.block("<", 0xBAD, bytes(3 * MAX_BLOCK))
    data += build.enhanced(1, b"e")
    records, report = read(tmp_path / "a", data)
    assert [record.frame for record in records] == [b"e"]
    assert (report.skipped_blocks, report.fault) == (2, "")


def test_long_block_is_checked_at_its_end_too(tmp_path: Path) -> None:
    head = build.section() + build.interface()
    data = bytearray(head + build.block("<", 0xBAD, bytes(MAX_BLOCK)))
    data[-1] ^= 1
    _, report = read(tmp_path / "a", bytes(data))
    assert (
        report.fault == f"the two lengths of the block differ at offset {len(head)}, after record 0"
    )


def test_largest_packet_in_both_formats(tmp_path: Path) -> None:
    frame = bytes(range(256)) * (MAX_CAPTURED // 256)
    head = build.section() + build.interface()
    for data in (build.pcap([(1, 1, frame)] * 3), head + build.enhanced(1, frame) * 3):
        records, report = read(tmp_path / "a", data)
        assert [record.frame == frame for record in records] == [True] * 3
        assert report.fault == ""


def test_more_records_than_a_block_holds(tmp_path: Path) -> None:
    count = 3 * BLOCK_RECORDS + 5
    records, _ = read(tmp_path / "a", build.pcap([(i, 0, b"%d" % i) for i in range(count)]))
    assert [record.frame for record in records] == [b"%d" % i for i in range(count)]
    assert [record.number for record in records] == list(range(1, count + 1))


def test_absurd_time_is_clamped(tmp_path: Path) -> None:
    data = build.section() + build.interface() + build.enhanced(2**64 - 1, b"")
    records, _ = read(tmp_path / "a", data)
    assert records[0].ts_ns == MAX_TIME_NS


def test_section_comments_are_kept_in_bounds_and_without_control_characters(
    tmp_path: Path,
) -> None:
    spoken = build.option("<", 1, "emulated: 家\x1b[31m".encode())
    spoken += build.option("<", 1, b"y" * 5000) * (MAX_COMMENTS + 5)
    _, report = read(tmp_path / "a", build.section(options=spoken))
    assert report.comments[0] == "emulated: 家 [31m"
    assert report.comments[1] == "y" * MAX_COMMENT_CHARS
    assert len(report.comments) == MAX_COMMENTS


HEAD = build.section() + build.interface()
GOOD = HEAD + build.enhanced(1, b"good")
AT = len(GOOD)
CUT = "cut short inside the header, record or block at offset"
LENGTH = "impossible length of the block at offset"


@pytest.mark.parametrize(
    ("data", "packets", "fault"),
    [
        (build.pcap([])[:20], 0, f"{CUT} 0, "),
        (build.pcap([(1, 1, b"abc")])[:-1], 0, f"{CUT} 24, "),
        (build.pcap([(1, 1, b"abc")]) + b"x", 1, f"{CUT} 43, "),
        (
            build.pcap([(1, 1, b"abc")]) + struct.pack("<IIII", 1, 1, MAX_CAPTURED + 1, 9),
            1,
            "impossible captured length of the packet at offset 43, ",
        ),
        (build.pcap([], version=(3, 4)), 0, "unsupported version of the format at offset 0, "),
        (GOOD[:-1], 0, f"{CUT} {len(HEAD)}, "),
        (GOOD + b"\6\0\0\0" + struct.pack("<II", 8, 8), 1, f"{LENGTH} {AT}, "),
        (GOOD + b"\7\0\0\0" + struct.pack("<II", 13, 8), 1, f"{LENGTH} {AT}, "),
        (GOOD + build.block("<", 6, b""), 1, f"{LENGTH} {AT}, "),
        (GOOD + struct.pack("<III", 6, MAX_BLOCK + 4, 0), 1, f"{LENGTH} {AT}, "),
        (GOOD + build.block("<", 6, struct.pack("<5I", 0, 0, 0, 5, 5) + b"abcd"), 1,
         f"the packet does not fit into its block at offset {AT}, "),
        (GOOD + build.enhanced(1, b"", index=1), 1,
         f"the packet names an interface that was not described at offset {AT}, "),
        (build.section() + build.simple(0, b""), 0,
         "the packet names an interface that was not described at offset 28, "),
        (GOOD + build.section(major=2), 1, f"unsupported version of the format at offset {AT}, "),
        (GOOD + build.block("<", 1, struct.pack("<HHIHH", 1, 0, 0, 9, 40)), 1,
         f"malformed option in the block at offset {AT}, "),
        (GOOD + build.block("<", 1, struct.pack("<HHIHHI", 1, 0, 0, 9, 4, 6)), 1,
         f"malformed option in the block at offset {AT}, "),
        (GOOD + b"\n\r\r\n" + bytes(30), 1, f"unknown byte order of the section at offset {AT}, "),
    ],
)  # fmt: skip
def test_reading_stops_at_the_fault_and_says_where(
    tmp_path: Path, data: bytes, packets: int, fault: str
) -> None:
    records, report = read(tmp_path / "a", data)
    assert len(records) == packets
    assert report.fault == f"{fault}after record {packets}"


def test_interfaces_are_bounded(tmp_path: Path) -> None:
    data = build.section() + build.interface() * 0x10000 + build.enhanced(1, b"")
    records, report = read(tmp_path / "a", data)
    assert records == []
    assert report.fault.startswith("more interfaces than any real section has at offset ")
