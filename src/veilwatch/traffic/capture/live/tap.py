"""Opening packet sockets on an interface, ready to be read by this process or another one.

A tap takes no packet until a `LiveCapture` listens to it. Opening needs CAP_NET_RAW, nothing
else here does: privileges can be dropped before the first packet is looked at.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from veilwatch.errors import CaptureError
from veilwatch.traffic.capture.live.bpf import accept, mute
from veilwatch.traffic.capture.live.fanout import Group, join_group
from veilwatch.traffic.capture.live.interface import hardware_type, interface_index, mtu
from veilwatch.traffic.capture.live.link import UNKNOWN, link_type
from veilwatch.traffic.capture.live.offload import advice, joining_offloads
from veilwatch.traffic.capture.live.options import (
    ETH_P_ALL,
    PACKET_ADD_MEMBERSHIP,
    PACKET_IGNORE_OUTGOING,
    PACKET_MR_PROMISC,
    SO_TIMESTAMPNS,
    SOL_PACKET,
    LiveSettings,
)
from veilwatch.traffic.capture.live.ring import ask_for_ring

MAX_WORKERS: Final = 128
"""Most sockets of one group: more than cores that one mirror port could keep busy."""

_LINK_HEADER_BYTES: Final = 14 + 2 * 4  # Ethernet with two VLAN tags


@dataclass(slots=True)
class Tap:
    """A packet socket that is bound to an interface and takes nothing yet.

    Attributes
    ----------
    socket
        The socket; it can be handed to another process.
    interface
        Name of the interface.
    index
        Its number, which changes when the interface is made anew.
    link
        LINKTYPE_ value of its frames.
    settings
        What was asked for.
    ring_bytes
        Size of the ring, 0 where the kernel refused one.
    grouped
        Whether several taps share the packets.
    warnings
        What is amiss with the interface, for people.
    """

    socket: socket.socket
    interface: str
    index: int
    link: int
    settings: LiveSettings
    ring_bytes: int
    grouped: bool
    warnings: list[str]

    def listen(self) -> None:
        """Take packets from now on: they wait in the ring until somebody reads."""
        accept(self.socket, self.settings.snaplen)

    def bind(self) -> None:
        """Bind to the interface of that name, which may be another one than before.

        Raises
        ------
        OSError
            If there is none, or the tap belongs to a group.
        """
        self.index = socket.if_nametoindex(self.interface)
        self.socket.bind((self.interface, ETH_P_ALL))
        if self.settings.promiscuous:
            request = struct.pack("@iHH8x", self.index, PACKET_MR_PROMISC, 0)
            self.socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)


def open_taps(
    interface: str,
    settings: LiveSettings = LiveSettings(),  # noqa: B008 (frozen)
    *,
    count: int = 1,
    gtp_ports: Sequence[int] = (),
    group: Group | None = None,
) -> list[Tap]:
    """Open sockets on an interface that share its packets by the addresses inside GTP-U.

    Parameters
    ----------
    interface
        Name of a network interface.
    settings
        Ring, capture length, promiscuous mode.
    count
        How many, at most `MAX_WORKERS`.
    gtp_ports
        UDP ports of GTP-U beside 2152.
    group
        What taps of other processes belong to as well.

    Raises
    ------
    CaptureError
        If there is no such interface, its frames are of an unknown kind, or permission is
        missing.
    """
    link = _check(interface)
    grouped = count > 1 or group is not None
    with ExitStack() as stack:
        taps = []
        for _ in range(count):
            descriptor = stack.enter_context(_open(interface))
            taps.append(_prepare(descriptor, interface, link, settings, grouped=grouped))
        try:
            for tap in taps:
                tap.bind()
            if grouped:
                join_group([tap.socket for tap in taps], gtp_ports, group)
        except OSError as error:
            raise CaptureError(
                f"cannot listen: {error.strerror}", where=interface, hint="is it still there?"
            ) from error
        taps[0].warnings += _warnings(interface, settings)
        stack.pop_all()
    return taps


def _check(interface: str) -> int:
    """Return the link type of an interface."""
    if interface_index(interface) is None:
        names = ", ".join(name for _, name in socket.if_nameindex())
        raise CaptureError("no such network interface", where=interface, hint=f"there are: {names}")
    link = int(link_type(hardware_type(interface)))
    if link == UNKNOWN:
        raise CaptureError(
            "an interface of this kind cannot be decoded",
            where=interface,
            hint="give an Ethernet or tunnel interface",
        )
    return link


def _open(interface: str) -> socket.socket:
    """Open a packet socket that receives nothing: protocol 0 until it is bound."""
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError as error:
        python = Path(os.path.realpath(sys.executable))
        raise CaptureError(
            "capturing needs the capability CAP_NET_RAW",
            where=interface,
            hint="run it with sudo, with AmbientCapabilities=CAP_NET_RAW under systemd, or once: "
            f"sudo setcap cap_net_raw+ep {python}",
        ) from error
    except OSError as error:
        raise CaptureError(
            f"no packet sockets here: {error.strerror}",
            where=interface,
            hint="read from a file or a pipe instead",
        ) from error


def _prepare(
    descriptor: socket.socket, interface: str, link: int, settings: LiveSettings, *, grouped: bool
) -> Tap:
    """Set all options of a new socket."""
    mute(descriptor)
    with suppress(OSError):  # came with Linux 4.20; the filter leaves them out as well
        descriptor.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    # With this the kernel stamps each packet once, as it comes in, and not when it is copied.
    descriptor.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    warnings = []
    try:
        ring_bytes = ask_for_ring(descriptor, settings.ring_mb)
    except OSError as error:
        ring_bytes = 0
        smaller = ", a smaller --ring-mb may help" if error.errno == errno.ENOMEM else ""
        warnings.append(f"no ring ({error.strerror}{smaller}): packets are fetched one by one")
    return Tap(
        descriptor, interface, 0, link, settings, ring_bytes, grouped=grouped, warnings=warnings
    )


def _warnings(interface: str, settings: LiveSettings) -> list[str]:
    """Say what keeps the interface from showing packets as they were on the wire."""
    found = []
    if offloads := joining_offloads(interface):
        found.append(
            f"{interface} joins packets ({', '.join(offloads)} on), so sizes and gaps are not "
            f"those of the wire: {advice(interface, offloads)}"
        )
    with suppress(OSError):
        frame = mtu(interface) + _LINK_HEADER_BYTES
        if frame > settings.snaplen:
            found.append(
                f"{interface} carries frames of up to {frame:,} bytes, of which the first "
                f"{settings.snaplen:,} are captured"
            )
    return found
