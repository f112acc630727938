"""Compressed captures and pipes."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard

from tests.traffic.capture import build
from veilwatch.errors import CaptureError
from veilwatch.schema.captures import FileReport
from veilwatch.traffic.capture import open_captures, source

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RANDOM = random.Random(5)
PACKETS = [(i, 0, RANDOM.randbytes(200)) for i in range(3000)]
PLAIN = build.pcap(PACKETS)
HALF = len(PLAIN) // 2
FIRST, SECOND = gzip.compress(PLAIN[:HALF]), gzip.compress(PLAIN[HALF:])


def read(path: Path, data: bytes) -> tuple[int, FileReport]:
    path.write_bytes(data)
    stream = open_captures([path])
    records = build.read_all(stream)
    assert [record.frame for record in records] == [frame for *_, frame in PACKETS[: len(records)]]
    return len(records), stream.report.files[0]


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


SKIPPABLE = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (gzip.compress(PLAIN), "pcap+gzip"),
        (FIRST + gzip.compress(b"") + SECOND, "pcap+gzip"),
        (FIRST + bytes(70_000) + SECOND, "pcap+gzip"),
        (gzip.compress(PLAIN) + bytes(512), "pcap+gzip"),
        (zstd(PLAIN), "pcap+zstd"),
        (zstd(PLAIN[:HALF]) + SKIPPABLE + zstd(PLAIN[HALF:]), "pcap+zstd"),
        (zstd(PLAIN) + SKIPPABLE, "pcap+zstd"),
    ],
    ids=["gzip", "members", "padding between", "padding after", "zstd", "frames", "skippable last"],
)  # fmt: skip
def test_compressed_captures(tmp_path: Path, data: bytes, form: str) -> None:
    packets, report = read(tmp_path / "a", data)
    assert (packets, report.format, report.fault) == (3000, form, "")
    assert report.bytes == len(PLAIN)


@pytest.mark.parametrize(
    ("compress", "part"),
    [
        (gzip.compress, 0.999),
        (gzip.compress, 0.5),
        (gzip.compress, 0.01),
        (zstd, 0.999),
        (zstd, 0.5),
    ],
)
def test_cut_stream_gives_what_it_holds(tmp_path: Path, compress: object, part: float) -> None:
    assert callable(compress)
    whole = compress(PLAIN)
    cut = whole[: int(len(whole) * part)]
    packets, report = read(tmp_path / "a", cut)
    if compress is gzip.compress:  # every packet that zlib can tell from these bytes
        held = zlib.decompressobj(wbits=31).decompress(cut)
        assert packets == (len(held) - 24) // 216
    assert packets > 2900 * part - 700  # a block of zstd, 128 KiB, is read whole or not at all
    assert "data cut after " in report.fault


def test_cut_between_two_records_is_noticed_through_the_compression(tmp_path: Path) -> None:
    stream = zlib.compressobj(wbits=31)
    data = stream.compress(PLAIN) + stream.flush(zlib.Z_FULL_FLUSH)
    packets, report = read(tmp_path / "a", data)
    assert packets == 3000
    assert report.fault == f"gzip data cut after {len(data):,} bytes"


def test_wrong_checksum_loses_no_packet(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(PLAIN))
    data[-6] ^= 1
    packets, report = read(tmp_path / "a", bytes(data))
    assert packets == 3000
    assert "gzip data damaged near byte" in report.fault


def test_damage_in_the_middle_keeps_what_comes_before(tmp_path: Path) -> None:
    stored = gzip.compress(PLAIN, compresslevel=0)  # stored blocks: the damage hits a header
    at = 10 + 5 + 65535
    data = stored[:at] + b"\xff" * 5 + stored[at + 5 :]
    packets, report = read(tmp_path / "a", data)
    assert packets == (65535 - 24) // 216
    assert report.fault.startswith("gzip data damaged near byte ")
    assert report.fault.endswith(f"at offset {24 + packets * 216}, after record {packets}")


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_garbage_after_the_stream_is_a_fault(tmp_path: Path, compress: object) -> None:
    assert callable(compress)
    packets, report = read(tmp_path / "a", compress(PLAIN) + b"what is this")
    assert packets == 3000
    assert "data damaged near byte" in report.fault


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_a_bomb_takes_no_memory(tmp_path: Path, compress: object) -> None:
    # 96 MiB of zeros behind a pcap header: empty records, 16 bytes each.
    assert callable(compress)
    (tmp_path / "a").write_bytes(compress(build.pcap([]) + bytes(96 << 20)))
    program = (
        "import resource, sys; from veilwatch.traffic.capture import open_captures\n"
        "def run(path):\n"
        "    with open_captures([path]) as s: return sum(map(len, s))\n"
        "run(sys.argv[1])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(run(sys.argv[2]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    (tmp_path / "warm").write_bytes(compress(build.pcap([])))
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "warm", tmp_path / "a"],
        capture_output=True,
        text=True,
        check=True,
    )
    records, grown_kib = map(int, done.stdout.split())
    assert records == (96 << 20) // 16
    assert grown_kib < 60 * 1024


class Stdin:
    def __init__(self, buffer: object) -> None:
        self.buffer = buffer


@pytest.mark.parametrize("data", [PLAIN, gzip.compress(PLAIN), PLAIN[:-5]])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    pipe = io.BytesIO(data)
    monkeypatch.setattr(sys, "stdin", Stdin(pipe))
    stream = open_captures(["-"])
    records = build.read_all(stream)
    report = stream.report.files[0]
    assert report.name == "-"
    assert not pipe.closed
    if data == PLAIN[:-5]:
        assert len(records) == 2999
        assert report.fault.endswith("after record 2999")
    else:
        assert len(records) == 3000
        assert report.fault == ""


def test_pipe_hands_over_packets_before_it_ends(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    seen = threading.Event()

    def write() -> None:
        with fifo.open("wb", buffering=0) as pipe:
            pipe.write(build.pcap([(1, 0, b"early")]))
            seen.wait(20)
            pipe.write(build.pcap([(2, 0, b"late")])[24:])

    writer = threading.Thread(target=write)
    writer.start()
    frames = []
    with open_captures([fifo]) as stream:
        for block in stream:
            frames += [record.frame for record in build.rows(block)]
            seen.set()  # only now may the rest come
    writer.join()
    assert frames == [b"early", b"late"]


def test_terminal_and_missing_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CaptureError, match="standard input: nothing is piped in"):
        open_captures(["-"])


class Failing(io.BytesIO):
    def readinto1(self, buffer: WriteableBuffer) -> int:
        if self.tell() > HALF:
            raise OSError(5, "Input/output error")
        view = memoryview(buffer)
        return super().readinto1(view[:1000])


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_failing_device_is_a_fault(monkeypatch: pytest.MonkeyPatch, compress: object) -> None:
    assert callable(compress)
    monkeypatch.setattr(sys, "stdin", Stdin(Failing(compress(PLAIN))))
    stream = open_captures(["-"])
    records = build.read_all(stream)
    assert 1000 < len(records) < 3000
    assert stream.report.files[0].fault.startswith("cannot read on: Input/output error")


def windowed(data: bytes, window_log: int) -> bytes:
    """A zstd frame that asks for a window of 2^`window_log` bytes."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        1, window_log=window_log, enable_ldm=False, write_content_size=False
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(data) + compressor.flush()


def test_overlapping_zstd_captures_share_their_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose window does not fit is said to be left out; what has ended gives its window back."""
    budget = source.MemoryBudget(3 << 20)
    monkeypatch.setattr(source, "zstd_memory", budget)
    for i in range(5):
        packets = [(10 * k + i, 0, bytes(2000)) for k in range(500)]
        (tmp_path / f"{i}").write_bytes(windowed(build.pcap(packets), 20))
    stream = open_captures([tmp_path])
    build.read_all(stream)
    whole = [report.packets for report in stream.report.files if not report.fault]
    assert whole == [500] * 3
    assert [report.packets for report in stream.report.faults] == [0, 0]
    for report in stream.report.faults:
        assert "zstd window of 1 MiB does not fit" in report.fault
    assert budget.taken == 0
    for i in range(5):
        packets = [(1000 * i + k, 0, bytes(2000)) for k in range(500)]
        (tmp_path / f"{i}").write_bytes(windowed(build.pcap(packets), 20))
    stream = open_captures([tmp_path])
    assert len(build.read_all(stream)) == 2500
    assert (stream.report.faults, budget.taken) == ([], 0)


def test_a_zstd_window_above_the_bound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(windowed(build.pcap([(1, 0, b"x")] * 10), 28))
    with pytest.raises(CaptureError, match="zstd data damaged"):
        open_captures([tmp_path / "a"])


def test_what_expands_most_comes_in_small_steps(tmp_path: Path) -> None:
    data = zstd(build.pcap([(k, 0, bytes(250_000)) for k in range(400)]))
    assert len(data) < 20_000
    (tmp_path / "a").write_bytes(data)
    opened = source.open_source(str(tmp_path / "a"))
    assert isinstance(opened, source.ZstdSource)
    room = memoryview(bytearray(1 << 20))
    total = largest = 0
    while count := opened.readinto(room):
        total += count
        largest = max(largest, len(opened._ready))
    assert (total, opened.fault) == (24 + 400 * 250_016, "")
    assert largest <= 2 << 20
    opened.close()
