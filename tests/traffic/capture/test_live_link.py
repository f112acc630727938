"""What interfaces of each hardware type give is a link type that the decoder reads."""

from __future__ import annotations

import pytest

from veilwatch.traffic.capture.live.link import UNKNOWN, link_type
from veilwatch.traffic.decode.steps import LINK_STEPS


@pytest.mark.parametrize(
    ("hardware", "link"),
    [
        (1, 1),  # Ethernet
        (772, 1),  # loopback
        (65534, 101),  # tun
        (519, 101),  # modem
        (512, 101),  # PPP
        (776, 101),  # 6in4
        (513, 104),  # Cisco HDLC
        (770, 107),  # Frame Relay
        (774, 10),  # FDDI
        (6, 6),
        (800, 6),  # Token Ring
        (801, 105),
        (802, 119),
        (803, 127),  # 802.11 and its radio headers
    ],
)
def test_hardware_types(hardware: int, link: int) -> None:
    assert link_type(hardware) == link
    assert link in LINK_STEPS


@pytest.mark.parametrize("hardware", [280, 824, 32])  # CAN, netlink, InfiniBand
def test_what_is_refused_before_anything_is_captured(hardware: int) -> None:
    assert link_type(hardware) == UNKNOWN
