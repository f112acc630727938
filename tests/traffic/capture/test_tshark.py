"""Hostile captures, read by tshark and by us: each disagreement is known and has a reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.traffic.capture import build
from veilwatch.errors import CaptureError
from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.capture.clock import MAX_TIME_NS

SAMPLE = 45

NO_TIME = "a Simple Packet Block has no time: tshark shows none, we that of the packet before"
ODD_TIME = "a fraction of more than a second: tshark prints it as it is or overflows, we carry it"
PSEUDO_HEADER = "tshark takes the pseudo-header of ATM off the packet"
TSHARK_STOPS = "a link type that tshark 4.0 does not know: it stops, we go on"
DISAGREEMENTS = {
    "PcapPlusPlus/pcapng-example-4f7773.pcapng": "absurd times: we clamp them",
    "gopacket/test017-685896.pcapng": "tshark shows custom blocks as packets, we count them",
    "gopacket/test100-72d94f.pcapng": NO_TIME,
    "gopacket/test101-e8a32f.pcapng": NO_TIME,
    "libpcap/brcm-tag-98217c.pcap": TSHARK_STOPS,
    "libpcap/dsa-b1a180.pcap": TSHARK_STOPS,
    "libpcap/linktype-reserved-field-not-zero-aca671.pcap": TSHARK_STOPS,
    "nDPI/fuzz-2021-10-13-ef5092.pcap": ODD_TIME,
    "suricata-verify/fuzz-854eb6.pcap": "tshark guesses longer record headers, we guess nothing",
    "suricata-verify/input-e75fad.pcap": ODD_TIME,
    "tcpdump/atm-heapoverflow-27b75b.pcap": PSEUDO_HEADER,
    "tcpdump/atm-oam-heapoverflow-4c08e3.pcap": PSEUDO_HEADER,
    "tcpdump/dsa-high-vid-d8bd0c.pcap": TSHARK_STOPS,
    "tcpdump/edsa-c6b5a7.pcap": TSHARK_STOPS,
    "tcpdump/edsa-high-vid-3c7587.pcap": TSHARK_STOPS,
    "tcpdump/frf16_magic_ie-oobr-c028b4.pcap": TSHARK_STOPS,
    "tcpdump/hoobr_juniper3-c86a2b.pcap": TSHARK_STOPS,
    "tcpdump/juniper_es_oobr-06caa5.pcap": TSHARK_STOPS,
    "tcpdump/kday6-a42aae.pcap": TSHARK_STOPS,
    "tcpdump/rx_serviceid_oobr-85812f.pcap": ODD_TIME,
    "tcpdump/vtp_asan-daf554.pcap": TSHARK_STOPS,
}
"""All disagreements among the 2,427 hostile captures, found with tshark 4.0.17."""

Row = tuple[int | None, int, int, int]


def tshark(path: Path) -> tuple[list[Row], bool]:
    """Time, length, captured length and interface of each packet, and whether it complains."""
    fields = ["frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_id"]
    asked = [part for field in fields for part in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-n", "-r", path, "-T", "fields", *asked],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    rows: list[Row] = []
    for line in done.stdout.splitlines():
        time, length, captured, interface = line.split("\t")
        seconds, _, fraction = time.partition(".")
        ns = int(seconds) * 10**9 + int(f"{fraction:0<9}") if time else None
        rows.append((ns, int(length), int(captured), int(interface or 0)))
    return rows, "tshark: " in done.stderr


def veilwatch(path: Path) -> tuple[list[Row], bool]:
    stream = open_captures([path])
    records = build.read_all(stream)
    rows: list[Row] = [(r.ts_ns, r.length, len(r.frame), r.interface) for r in records]
    return rows, bool(stream.report.faults)


@pytest.mark.slow
@pytest.mark.corpus
def test_sample_of_hostile_captures(corpus_path: Path) -> None:
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed")
    folder = corpus_path / "hostile"
    files = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".csv", ".snoop")
    )
    sample = {*files[:: len(files) // SAMPLE], *list(DISAGREEMENTS)[::2]}
    different = {name for name in sample if veilwatch(folder / name) != tshark(folder / name)}
    assert different == sample & DISAGREEMENTS.keys()


@pytest.mark.corpus
def test_clamped_times_are_the_only_change_to_the_absurd_capture(corpus_path: Path) -> None:
    records = build.read_all(
        open_captures([corpus_path / "hostile/PcapPlusPlus/pcapng-example-4f7773.pcapng"])
    )
    assert len(records) == 159
    assert 0 < sum(record.ts_ns == MAX_TIME_NS for record in records) < 159


@pytest.mark.corpus
def test_every_hostile_capture_is_read_or_refused(corpus_path: Path) -> None:
    """As a folder, all at once and in time order: nothing may crash, hang or be lost."""
    folder = corpus_path / "hostile"
    with open_captures([folder]) as stream:
        clock = total = 0
        for block in stream:
            total += len(block)
            clock = max(clock, int(block.records["ts_ns"].max()))
    assert len(stream.report.files) == 2426  # all but a snoop file and the manifest
    assert stream.report.packets == total
    with pytest.raises(CaptureError, match="a snoop capture"):
        open_captures([folder / "PcapPlusPlus" / "solaris-da7e77.snoop"])
