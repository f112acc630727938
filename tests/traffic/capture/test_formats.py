"""What the formats say, in files small enough to check by eye."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.traffic.capture import build
from tests.traffic.capture.reference import Record
from veilwatch.schema.captures import MAX_COMMENT_CHARS, MAX_COMMENTS, FileReport
from veilwatch.schema.packets import BLOCK_RECORDS, MAX_CAPTURED
from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.capture.clock import MAX_TIME_NS
from veilwatch.traffic.capture.pcapng import MAX_BLOCK, MAX_PLAUSIBLE

NS = 1_000_000_000


def read(path: Path, data: bytes) -> tuple[list[Record], FileReport]:
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
        Record(1, build.T0 * NS + 25 * unit, 12, 1, 0, b"first"),
        Record(2, NS, 7, 1, 0, b""),
    ]
    assert report == FileReport(
        name=str(tmp_path / "misnamed.txt"),
        format="pcap",
        packets=2,
        bytes=len(data),
        first_ns=NS,
        last_ns=build.T0 * NS + 25 * unit,
        interfaces=[1],
        time_back=1,
        time_back_most_ns=(build.T0 - 1) * NS + 25 * unit,
        time_back_first=2,
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
    assert records == [Record(1, NS + 1000, 90, 1, 0, b"abc")]


def test_sections_of_both_byte_orders_restart_the_interfaces(tmp_path: Path) -> None:
    data = build.section("<") + build.interface("<", 1) + build.interface("<", 113, resolution=9)
    data += build.enhanced(5, b"a", index=1) + build.enhanced(5, b"b")
    data += build.section(">") + build.interface(">", 101, resolution=0x80 | 10, offset=100)
    data += build.enhanced(1024 * 7 + 512, b"c", ">") + build.obsolete(2048, b"d", ">")
    records, report = read(tmp_path / "a", data)
    assert records == [
        Record(1, 5, 8, 113, 1, b"a"),
        Record(2, 5000, 8, 1, 0, b"b"),
        Record(3, 107 * NS + NS // 2, 8, 101, 0, b"c"),
        Record(4, 102 * NS, 8, 101, 0, b"d"),
    ]
    assert report.interfaces == [1, 113, 101]
    assert report.format == "pcapng"
    assert report.fault == ""


def test_simple_packet_takes_snap_length_and_the_time_before_it(tmp_path: Path) -> None:
    data = build.section() + build.interface(link=1, snaplen=4) + build.simple(9, b"abcd")
    data += build.enhanced(77, b"e") + build.simple(3, b"xyz")
    records, _ = read(tmp_path / "a", data)
    assert records == [
        Record(1, 0, 9, 1, 0, b"abcd"),
        Record(2, 77_000, 8, 1, 0, b"e"),
        Record(3, 77_000, 3, 1, 0, b"xyz"),
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
    data = bytearray(head + build.block("<", 0xBAD, bytes(MAX_BLOCK)) + b"no block follows")
    data[-17] ^= 1
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
TRAILER = "the two lengths of the block differ at offset"


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
        (GOOD + struct.pack("<III", 7, 13, 8), 1, f"{CUT} {AT}, "),
        (GOOD + struct.pack("<IIIII", 7, 13, 8, 8, 8), 1, f"{LENGTH} {AT}, "),
        (GOOD + struct.pack("<III", 6, MAX_PLAUSIBLE + 4, 0), 1, f"{LENGTH} {AT}, "),
        (GOOD + struct.pack("<IIIII", 7, 16, 8, 8, 8), 1, f"{TRAILER} {AT}, "),
        (GOOD + build.section(major=2), 1, f"unsupported version of the format at offset {AT}, "),
        (GOOD + b"\n\r\r\n" + bytes(30), 1, f"unknown byte order of the section at offset {AT}, "),
    ],
)  # fmt: skip
def test_reading_stops_at_the_fault_and_says_where(
    tmp_path: Path, data: bytes, packets: int, fault: str
) -> None:
    records, report = read(tmp_path / "a", data)
    assert len(records) == packets
    assert report.fault == f"{fault}after record {packets}"


def wrong_end(block: bytes, total: int = 99) -> bytes:
    return block[:-4] + struct.pack("<I", total)


def described(options: bytes) -> bytes:
    return build.block("<", 1, struct.pack("<HHI", 1, 0, 0) + options)


def unpadded(kind: int, body: bytes) -> bytes:
    total = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + total + body + total


def padded(kind: int, body: bytes) -> bytes:
    total = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + total + body + bytes(-len(body) % 4) + total


START, IDB = build.section(), build.interface()
ONE, TWO = build.enhanced(1, b"one"), build.enhanced(2, b"two")
HEADER = struct.pack("<5I", 0, 0, 1, 3, 3)
OVERRUN = struct.pack("<HH", 1, 400) + b"abcd"
NO_INTERFACE = "packet of an interface that was not described: left out"
TWO_LENGTHS = "block whose two lengths differ"
NO_MULTIPLE = "block whose length is no multiple of 4"
SHORT = "block too short for its kind: left out"
BEYOND = "option that reaches beyond its block"
VALUE = "option of a wrong length"


@pytest.mark.parametrize(
    ("data", "frames", "odd"),
    [
        (START + IDB + ONE + wrong_end(build.block("<", 5, b"abcd")) + TWO, "one two", TWO_LENGTHS),
        (START + IDB + ONE + wrong_end(TWO), "one two", TWO_LENGTHS),
        (START + wrong_end(IDB) + ONE + TWO, "one two", TWO_LENGTHS),
        (wrong_end(START) + IDB + ONE + TWO, "one two", TWO_LENGTHS),
        (START + IDB + unpadded(6, HEADER + b"one") + TWO, "one two", NO_MULTIPLE),
        (START + IDB + padded(6, HEADER + b"one") + TWO, "one two", NO_MULTIPLE),
        (START + IDB + padded(7, b"12345") + unpadded(7, b"1") + TWO, "two", NO_MULTIPLE),
        (START + described(build.option("<", 9, b"\6")) + ONE + TWO, "one two", ""),
        (START + described(build.option("<", 9, b"")) + ONE, "one", VALUE),
        (START + described(build.option("<", 9, b"\6\0\0\0")) + ONE, "one", VALUE),
        (START + described(build.option("<", 14, b"\1\0\0\0")) + ONE, "one", VALUE),
        (START + described(struct.pack("<HH", 9, 40) + b"\6\0\0\0") + ONE, "one", BEYOND),
        (build.section(options=OVERRUN) + IDB + ONE, "one", BEYOND),
        (START + IDB + build.enhanced(1, b"one", options=OVERRUN) + TWO, "one two", ""),
        (START + IDB + ONE + build.enhanced(1, b"x", index=7) + TWO, "one two", NO_INTERFACE),
        (START + ONE + IDB + TWO, "two", NO_INTERFACE),
        (START + build.simple(3, b"abc") + IDB + TWO, "two", NO_INTERFACE),
        (START + IDB + build.block("<", 6, HEADER[:12] + struct.pack("<II", 9, 9) + b"good") + TWO,
         "good two", "packet longer than its block: cut there"),
        (START + IDB + build.block("<", 6, HEADER[:8]) + build.block("<", 3, b"") + TWO, "two",
         SHORT),
        (START + IDB + build.block("<", 6, HEADER + b"one" + bytes(MAX_BLOCK)) + TWO, "two",
         "block too long for a packet: left out"),
        (START + IDB + build.block("<", 6, struct.pack("<5I", 0, 0, 0, 300_000, 9) + bytes(300_000))
         + TWO, "two", "packet longer than any capture has: left out"),
        (START + IDB + ONE + TWO + bytes(512), "one two", "end filled with zeros"),
        (START + IDB + ONE + bytes(300_000), "one", "end filled with zeros"),
        (START[:4] + bytes(4) + START[8:-4] + bytes(4) + IDB + ONE, "one", SHORT),
    ],
)  # fmt: skip
def test_what_is_odd_is_said_once_and_read_on(
    tmp_path: Path, data: bytes, frames: str, odd: str
) -> None:
    records, report = read(tmp_path / "a", data)
    assert b" ".join(record.frame for record in records).decode() == frames
    assert (list(report.odd), report.fault) == ([odd] if odd else [], "")
    assert [line.partition(" × ")[2] for line in report.notes] == ([odd] if odd else [])


def test_the_same_oddity_is_one_line_with_its_count(tmp_path: Path) -> None:
    _, report = read(tmp_path / "a", START + IDB + build.enhanced(1, b"x", index=7) * 2500 + ONE)
    assert report.odd == {NO_INTERFACE: 2500}
    assert report.notes == [f"2,500 × {NO_INTERFACE}"]
    assert report.skipped_blocks == 2500


@pytest.mark.parametrize("order", "<>")
def test_a_resolution_in_four_bytes_is_that_of_its_number(tmp_path: Path, order: str) -> None:
    value = struct.pack(order + "I", 9)
    body = struct.pack(order + "HHI", 1, 0, 0) + build.option(order, 9, value)
    data = build.section(order) + build.block(order, 1, body) + build.enhanced(7 * NS, b"x", order)
    records, _ = read(tmp_path / "a", data)
    assert records[0].ts_ns == 7 * NS


@pytest.mark.parametrize("magic", [0x1C0001AC, 0x1C0001AB])
@pytest.mark.parametrize("order", "<>")
def test_lcap_is_pcap_with_one_field_more(tmp_path: Path, order: str, magic: int) -> None:
    data = build.pcap([(5, 7, b"one"), (6, 8, b"two")], order=order, magic=magic)
    data = data[:24] + struct.pack(order + "I", 38) + data[24:]
    records, report = read(tmp_path / "a", data)
    assert [(r.ts_ns, r.frame) for r in records] == [
        (5 * NS + 7000, b"one"),
        (6 * NS + 8000, b"two"),
    ]
    assert report.fault == ""


def test_interfaces_are_bounded(tmp_path: Path) -> None:
    data = build.section() + build.interface() * 0x10000 + build.enhanced(1, b"")
    records, report = read(tmp_path / "a", data)
    assert records == []
    assert report.fault.startswith("more interfaces than any real section has at offset ")
