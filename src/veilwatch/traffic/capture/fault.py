"""Why a capture could not be read to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# What a walking kernel answers. The first four ask Python for help, the others are faults.
FULL: Final = 0  # the array of records is full
MORE: Final = 1  # the record at hand is not wholly in the window
STRUCTURE: Final = 2  # a section header or an interface description comes next
SKIP: Final = 3  # an unknown block that reaches beyond the window comes next
CUT: Final = 4
CAPTURED: Final = 5
BLOCK_LENGTH: Final = 6
TRAILER: Final = 7
BYTE_ORDER: Final = 8
VERSION: Final = 9
INTERFACES: Final = 10

REASONS: Final = {
    CUT: "cut short inside the header, record or block",
    CAPTURED: "impossible captured length of the packet",
    BLOCK_LENGTH: "impossible length of the block",
    TRAILER: "the two lengths of the block differ",
    BYTE_ORDER: "unknown byte order of the section",
    VERSION: "unsupported version of the format",
    INTERFACES: "more interfaces than any real section has",
}

# What a walking kernel counts because it is odd but does not keep it from reading on.
ODD_TRAILER: Final = 0
ODD_LENGTH: Final = 1
ODD_OVERFULL: Final = 2
ODD_INTERFACE: Final = 3
ODD_CAPTURED: Final = 4
ODD_SHORT: Final = 5
ODD_LONG: Final = 6
ODD_OPTION: Final = 7
ODD_VALUE: Final = 8
ODD_ZEROS: Final = 9
ODD_ORDER: Final = 10
ODDITIES: Final = 11

WHAT_IS_ODD: Final = {
    ODD_TRAILER: "block whose two lengths differ",
    ODD_LENGTH: "block whose length is no multiple of 4",
    ODD_OVERFULL: "packet longer than its block: cut there",
    ODD_INTERFACE: "packet of an interface that was not described: left out",
    ODD_CAPTURED: "packet longer than any capture has: left out",
    ODD_SHORT: "block too short for its kind: left out",
    ODD_LONG: "block too long for a packet: left out",
    ODD_OPTION: "option that reaches beyond its block",
    ODD_VALUE: "option of a wrong length",
    ODD_ZEROS: "end filled with zeros",
    ODD_ORDER: "section that begins before the one in front of it ends: only plain files are put "
    "in order",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """The place where reading stopped.

    Attributes
    ----------
    code
        A key of `REASONS`.
    offset
        First byte of the header, record or block at fault, in the decompressed capture.
    records
        Records read before it.
    """

    code: int
    offset: int
    records: int

    def __str__(self) -> str:
        return f"{REASONS[self.code]} at offset {self.offset}, after record {self.records}"
