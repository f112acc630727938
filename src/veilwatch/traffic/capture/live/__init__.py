"""Live capture from a network interface, Linux only: AF_PACKET sockets with a TPACKET_V3 ring."""

from veilwatch.traffic.capture.live.capture import LiveCapture, open_live
from veilwatch.traffic.capture.live.fanout import Group
from veilwatch.traffic.capture.live.options import LiveSettings
from veilwatch.traffic.capture.live.tap import MAX_WORKERS, Tap, open_taps

__all__ = [
    "MAX_WORKERS",
    "Group",
    "LiveCapture",
    "LiveSettings",
    "Tap",
    "open_live",
    "open_taps",
]
