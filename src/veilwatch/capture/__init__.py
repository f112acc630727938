"""From files and pipes to blocks of raw packets, and back. See docs/architecture.md."""

from veilwatch.capture.stream import CaptureStream, open_captures
from veilwatch.capture.writer import PcapngWriter, PcapWriter

__all__ = ["CaptureStream", "PcapWriter", "PcapngWriter", "open_captures"]
