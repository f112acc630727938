"""Any bytes as a capture file: the kernels have to read what plain Python reads of them."""

from __future__ import annotations

import tests.traffic.capture.reference
from tests.traffic.capture.build import read_bytes
from tests.traffic.capture.reference import read_reference

from fuzz.coverage import guide_by
from fuzz.seeds import CAPTURES

guide_by(tests.traffic.capture.reference)
SEEDS = CAPTURES
MAGICS = (
    *(b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d"),
    *(b"\x34\xcd\xb2\xa1", b"\x0a\x0d\x0d\x0a"),
)


def one(data: bytes) -> None:
    """Compare records, interfaces and fault."""
    if data[:4] not in MAGICS:
        return  # what is no capture is refused before a reader sees it
    expected = read_reference(data)
    got, _ = read_bytes(data, 300)
    assert got == expected
