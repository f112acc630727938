"""What a reader says about the files it read, for `inspect`, the report and the exit line."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

MAX_COMMENTS: Final = 16
"""Most section comments kept of one file: who writes more has no message for people."""

MAX_COMMENT_CHARS: Final = 1000
"""Most characters kept of one comment: it is shown on a line of the report."""


@dataclass(slots=True)
class LiveReport:
    """How a live capture went.

    Attributes
    ----------
    received
        Packets that the kernel kept for us.
    dropped
        Packets that it lost because we did not read fast enough.
    freezes
        How often it found its ring full.
    ring_bytes
        Size of the ring, 0 where packets were fetched one by one.
    snaplen
        Most bytes captured of a packet.
    interruptions
        How often the interface went away.
    warnings
        What keeps the interface from showing packets as they were on the wire.
    """

    received: int = 0
    dropped: int = 0
    freezes: int = 0
    ring_bytes: int = 0
    snaplen: int = 0
    interruptions: int = 0
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class FileReport:
    """One input and how far it could be read.

    Attributes
    ----------
    name
        Path as the user gave it, `-` for standard input.
    format
        "pcap", "pcapng", …, with "+gzip" or "+zstd" where compressed; "live"; "" while unknown.
    packets
        Records read.
    bytes
        Bytes of the (decompressed) capture that were understood.
    first_ns, last_ns
        Earliest and latest packet time that can be right, ns since the epoch; None without packets.
    interfaces
        LINKTYPE_ value of each interface seen.
    skipped_blocks
        pcapng blocks of a type that carries no packet.
    comments
        Comments on the section headers of a pcapng, at most `MAX_COMMENTS`, each cut to
        `MAX_COMMENT_CHARS` and freed of control characters: emulated captures are marked here.
    odd
        What is odd but was read or passed over, and how often.
    time_back, time_back_most_ns, time_back_first
        How often time ran back from one packet to the next, by how much at most, and the number of
        the first packet where it did, 0 for none.
    bad_stamps, bad_stamp_first, bad_stamp_ns
        Packets whose time is far from that of all packets around them, the number of the first one
        and its time.
    fault
        Why reading stopped before the end ("cut inside the record at offset 1234 …"),
        empty when the file was read whole.
    live
        How the capture went, of a network interface only.
    """

    name: str
    format: str = ""
    packets: int = 0
    bytes: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    interfaces: list[int] = field(default_factory=list)
    skipped_blocks: int = 0
    comments: list[str] = field(default_factory=list)
    odd: dict[str, int] = field(default_factory=dict)
    time_back: int = 0
    time_back_most_ns: int = 0
    time_back_first: int = 0
    bad_stamps: int = 0
    bad_stamp_first: int = 0
    bad_stamp_ns: int = 0
    fault: str = ""
    live: LiveReport | None = None

    @property
    def notes(self) -> list[str]:
        """What people should know of a file that was read all the same, a line each."""
        lines = []
        if self.bad_stamps:
            lines.append(
                f"{_counted(self.bad_stamps, 'packet')} with a time that cannot be right, the "
                f"first is number {self.bad_stamp_first:,} of {_date(self.bad_stamp_ns)}: counted "
                "at the time of the packets around it"
            )
        if self.time_back:
            lines.append(
                f"time ran back {_counted(self.time_back, 'time')}, by "
                f"{self.time_back_most_ns / 1e9:,.6f} s at most, first at packet "
                f"{self.time_back_first:,}"
            )
        lines += [f"{count:,} × {what}" for what, count in self.odd.items()]
        return lines

    def add_odd(self, what: str, count: int = 1) -> None:
        """Count what is odd but readable."""
        if count:
            self.odd[what] = self.odd.get(what, 0) + count


@dataclass(slots=True)
class CaptureReport:
    """All inputs of one run, in the order in which they were opened."""

    files: list[FileReport] = field(default_factory=list)

    @property
    def packets(self) -> int:
        """Records read from all files."""
        return sum(report.packets for report in self.files)

    @property
    def faults(self) -> list[FileReport]:
        """Files that were not read to their end."""
        return [report for report in self.files if report.fault]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _date(time_ns: int) -> str:
    """Return a packet time for people; the largest there is lies in 2116."""
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
