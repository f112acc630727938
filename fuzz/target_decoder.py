"""Any bytes as a frame of any link type: kernel and plain-Python oracle have to agree."""

from __future__ import annotations

import tests.traffic.decode.reference
from tests.traffic.decode.frames import Frame, as_block, assert_as_reference

from fuzz.coverage import guide_by
from fuzz.seeds import FRAMES
from veilwatch.traffic.decode import Decoder

guide_by(tests.traffic.decode.reference)
LINKS = (1, 101, 113, 276, 0, 108, 9, 50, 51, 228, 229, 105)
SEEDS = [bytes([0, 0]) + frame for frame in FRAMES]
DECODER = Decoder()


def one(data: bytes) -> None:
    """First byte: link type; second: how many bytes the capture cut."""
    if len(data) < 3:
        return
    frame = data[2:]
    length = len(frame) + data[1]
    block = as_block([Frame(frame, LINKS[data[0] % len(LINKS)], length)])
    assert_as_reference(block, DECODER)
