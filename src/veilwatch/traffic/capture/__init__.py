"""From files, pipes and interfaces to blocks of raw packets, and back. See docs/architecture.md."""

from veilwatch.traffic.capture.blocks import Direction, Interface
from veilwatch.traffic.capture.inputs import Captures, as_names
from veilwatch.traffic.capture.rotate import RotatingWriter, Rotation
from veilwatch.traffic.capture.source import can_reopen
from veilwatch.traffic.capture.stream import BlockStream, CaptureStream, open_captures
from veilwatch.traffic.capture.writer import CaptureWriter, PcapngWriter, PcapWriter

__all__ = [
    "BlockStream",
    "CaptureStream",
    "CaptureWriter",
    "Captures",
    "Direction",
    "Interface",
    "PcapWriter",
    "PcapngWriter",
    "RotatingWriter",
    "Rotation",
    "as_names",
    "can_reopen",
    "open_captures",
]
