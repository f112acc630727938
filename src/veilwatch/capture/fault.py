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
OVERFULL: Final = 8
INTERFACE: Final = 9
BYTE_ORDER: Final = 10
VERSION: Final = 11
OPTION: Final = 12
INTERFACES: Final = 13

REASONS: Final = {
    CUT: "cut short inside the header, record or block",
    CAPTURED: "impossible captured length of the packet",
    BLOCK_LENGTH: "impossible length of the block",
    TRAILER: "the two lengths of the block differ",
    OVERFULL: "the packet does not fit into its block",
    INTERFACE: "the packet names an interface that was not described",
    BYTE_ORDER: "unknown byte order of the section",
    VERSION: "unsupported version of the format",
    OPTION: "malformed option in the block",
    INTERFACES: "more interfaces than any real section has",
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
