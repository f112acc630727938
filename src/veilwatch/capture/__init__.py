"""From files, pipes and interfaces to blocks of raw packets, and back. See docs/architecture.md."""

from veilwatch.capture.stream import BlockStream, CaptureStream, open_captures
from veilwatch.capture.writer import PcapngWriter, PcapWriter

__all__ = ["BlockStream", "CaptureStream", "PcapWriter", "PcapngWriter", "open_captures"]
