"""What a file is, told by its first bytes and never by its name."""

from __future__ import annotations

from typing import Final

from veilwatch.errors import CaptureError
from veilwatch.traffic.capture.pcap import MAGICS
from veilwatch.traffic.capture.pcapng import BYTE_ORDER_MAGIC, SECTION
from veilwatch.traffic.capture.window import Window

PCAP: Final = "pcap"
PCAPNG: Final = "pcapng"

_SNIFFED: Final = 16
"""Bytes that tell the format; the longest magic of a format we name has as many."""

_FOREIGN: Final = (
    (b"snoop\0\0\0", "a snoop capture"),
    (b"btsnoop\0", "a btsnoop capture"),
    (b"RTSS", "a Network Monitor 1 capture"),
    (b"GMBU", "a Network Monitor 2 capture"),
    (b"TRSNIFF data    ", "a Sniffer capture"),
    (b"XCP\0", "a NetXRay capture"),
    (b"\x05VNF", "a Visual Networks capture"),
    (b"iptrace ", "an AIX iptrace"),
    (b"ObserverPktBuffe", "an Observer capture"),
    (b"\x7fver", "an EtherPeek capture"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\0", "xz data"),
    (b"\x04\x22\x4d\x18", "lz4 data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip within compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstd within compressed data"),
    (b"PAR1", "a Parquet file"),
    (b"\x7fELF", "a program"),
)
"""Magics of what people also call a capture, or give by mistake."""

HINT: Final = "give a pcap or pcapng file, plain, gzip or zstd"
_CONVERT: Final = "unpack it or convert it with editcap first; pcap and pcapng are read"


class NotACapture(CaptureError):
    """An input whose first bytes are those of no capture format that is read."""


def recognise(window: Window, name: str) -> str:
    """Return `PCAP` or `PCAPNG` for the input whose first bytes `window` shows next.

    Raises
    ------
    NotACapture
        If it is neither; the message names what it is where that is known.
    """
    window.ensure(_SNIFFED)
    head = window.peek(_SNIFFED)
    if len(head) >= 4:
        if int.from_bytes(head[:4]) in MAGICS or int.from_bytes(head[:4], "little") in MAGICS:
            return PCAP
        # The first bytes of a pcapng are line ends, which a text may have as well.
        order = head[8:12]
        if int.from_bytes(head[:4]) == SECTION and (
            len(order) < 4
            or BYTE_ORDER_MAGIC in (int.from_bytes(order), int.from_bytes(order, "little"))
        ):
            return PCAPNG
    if window.source.fault:
        raise NotACapture(window.source.fault, where=name, hint=HINT)
    if not head:
        raise NotACapture("the file is empty", where=name, hint=HINT)
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise NotACapture(f"not a pcap capture but {what}", where=name, hint=_CONVERT)
    raise NotACapture("not a capture", where=name, hint=HINT)
