"""Wrapping real captures in GTP-U: what their traffic would look like on N3.

The wrapping is synthetic, the traffic inside stays as captured: inner packets, times and cut
lengths are not touched.

Which hosts become subscribers
    Every flow gets one inside end: its initiator if that has a private address, else its
    responder if that has one, else its initiator. Private means RFC 1918 and ULA (RFC 4193);
    link-local, multicast and unspecified addresses never count. The caller may name the inside
    networks instead.
Traffic between two subscribers
    A probe on N3 would see such a packet twice, on the way up in one tunnel and on the way down
    in the other. Only the uplink leg is written, so that no packet is doubled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)
from pathlib import Path
from typing import Final, NamedTuple

from veilwatch.corpus.tunnel import MAX_INNER, IPAddress, Subscriber, wrap
from veilwatch.errors import CaptureError
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.packets import RawBlock, Status
from veilwatch.traffic.capture import Captures, PcapngWriter, as_names, open_captures
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.decode.kernel import MAX_LINK_LENGTH

IPNetwork = IPv4Network | IPv6Network

MAX_SUBSCRIBERS: Final = 65_536
"""Most hosts turned into subscribers: a scan of a whole private network must not fill memory."""

MAX_PAIRS: Final = 1_048_576
"""Most address pairs remembered while hosts are looked for, about 200 MB. Beyond it the memory
starts anew, and a later packet of an old pair is taken for its first."""

_NOTICE: Final = "synthetic GTP-U wrapping by Veilwatch of"
_MAX_NAMES: Final = 4096  # letters of file names in the comment; an option holds 65,535 bytes
_PRIVATE: Final = [
    ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
]
_GNB_IPV4: Final = IPv4Address("172.20.1.10")
_UPF_IPV4: Final = IPv4Address("172.20.9.2")
_GNB_IPV6: Final = IPv6Address("2001:db8:20:1::10")
_UPF_IPV6: Final = IPv6Address("2001:db8:20:9::2")
_CUT: Final = (
    *(Status.EMPTY, Status.TRUNCATED_LINK, Status.TRUNCATED_NETWORK),
    Status.TRUNCATED_TUNNEL,
)
_TCP_SYN_ACK: Final = 0x12


@dataclass(frozen=True, slots=True)
class EncapsulateOptions:
    """How captures are wrapped.

    Attributes
    ----------
    pdu_session
        Whether a PDU session container with QFI is added (5G N3; without it S1-U or 4G).
    inside
        Networks whose hosts become subscribers; None lets the capture decide.
    gnbs, upfs
        How many base stations and user plane functions share the subscribers.
    outer_ipv6
        Whether the tunnels run over IPv6.
    seed
        TEIDs, QFI and tunnel end points depend on nothing but it and the inner address.
    """

    pdu_session: bool = True
    inside: Sequence[IPNetwork] | None = None
    gnbs: int = 4
    upfs: int = 1
    outer_ipv6: bool = False
    seed: int = 0


DROPS: Final = {
    "not_ip": "no IPv4 or IPv6 packet behind the link header, or an unknown link type",
    "cut": "captured shorter than the IP header",
    "outside": "neither end is a subscriber",
    "too_long": "no room for the tunnel headers",
}
"""Why a packet is not in the output."""


@dataclass(slots=True)
class EncapsulateSummary:
    """What became of the packets: `uplink`, `downlink` and `dropped` add up to `read`.

    Attributes
    ----------
    output
        The capture written.
    read
        Packets read.
    uplink, downlink
        Packets written, by direction.
    dropped
        Packets not written, by the reasons of `DROPS`.
    subscribers
        The sessions made, by inner address.
    captures
        The inputs, and which of them could not be read to their end.
    """

    output: Path
    read: int = 0
    uplink: int = 0
    downlink: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DROPS, 0))
    subscribers: dict[IPAddress, Subscriber] = field(default_factory=dict)
    captures: CaptureReport = field(default_factory=CaptureReport)


class _Dropped(Exception):
    """A packet that cannot be wrapped, for one of the reasons of `DROPS`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Frame(NamedTuple):
    ts_ns: int
    data: bytes  # as captured
    length: int  # on the wire
    ip_headers: int  # how many were found
    start: int  # of the outermost one
    status: int


class _IPPacket(NamedTuple):
    source: IPAddress
    destination: IPAddress
    data: bytes  # as captured, without link header and padding
    length: int  # on the wire


def _address(data: bytes) -> IPAddress:
    return IPv4Address(data) if len(data) == 4 else IPv6Address(data)


def _ip_packet(frame: _Frame) -> _IPPacket:
    if not frame.ip_headers or frame.start == MAX_LINK_LENGTH:
        raise _Dropped("cut" if frame.status in _CUT else "not_ip")
    data, available = frame.data[frame.start :], frame.length - frame.start
    if not data:
        raise _Dropped("cut")
    version = data[0] >> 4
    if version not in (4, 6):
        raise _Dropped("not_ip")
    if len(data) < (20 if version == 4 else 40):
        raise _Dropped("cut")
    if version == 4:
        stated = int.from_bytes(data[2:4], "big")
        source, destination = data[12:16], data[16:20]
    else:
        payload = int.from_bytes(data[4:6], "big")
        stated = 40 + payload if payload else 0
        source, destination = data[8:24], data[24:40]
    # 0 stands for a length left to the network card; more than was sent is nonsense
    total = stated if 0 < stated <= available else available
    return _IPPacket(_address(source), _address(destination), data[:total], total)


def _is_private(address: IPAddress) -> bool:
    return any(address in network for network in _PRIVATE)


def _can_be_host(address: IPAddress) -> bool:
    return not (address.is_multicast or address.is_unspecified or address.is_link_local)


def _answers(packet: _IPPacket) -> bool:
    """Return whether a packet is a SYN-ACK, so that its destination was first."""
    data = packet.data
    if packet.source.version != 4 or data[9] != 6:
        at = 40 if packet.source.version == 6 and data[6] == 6 else -1
    else:
        at = (data[0] & 15) * 4
    return at >= 0 and len(data) > at + 13 and data[at + 13] & _TCP_SYN_ACK == _TCP_SYN_ACK


def _inside_end(packet: _IPPacket) -> IPAddress | None:
    """Return which end of a flow's first packet is the subscriber's."""
    ends = (packet.source, packet.destination)
    if _answers(packet):
        ends = ends[::-1]
    hosts = [address for address in ends if _can_be_host(address)]
    private = [address for address in hosts if _is_private(address)]
    return next(iter(private or hosts), None)


def _too_many() -> CaptureError:
    return CaptureError(
        f"more than {MAX_SUBSCRIBERS} inside hosts", hint="name (smaller) inside networks"
    )


class _Finder:
    """Looks for the inside hosts of a capture."""

    def __init__(self) -> None:
        self.found: set[IPAddress] = set()
        self._pairs: set[tuple[IPAddress, IPAddress]] = set()

    def see(self, packet: _IPPacket) -> None:
        """Learn from one packet."""
        if (packet.source, packet.destination) in self._pairs:
            return
        if len(self._pairs) >= MAX_PAIRS:
            self._pairs.clear()
        self._pairs.add((packet.source, packet.destination))
        self._pairs.add((packet.destination, packet.source))
        host = _inside_end(packet)
        if host is not None:
            self.found.add(host)
        if len(self.found) > MAX_SUBSCRIBERS:
            raise _too_many()


def _frames(block: RawBlock, decoder: Decoder) -> list[_Frame]:
    """Return each record of a block, and where its outermost IP header lies."""
    records, packets = block.records, decoder.decode(block).packets
    return [
        _Frame(
            ts_ns,
            block.buffer[offset : offset + captured].tobytes(),
            max(length, captured),
            ip_headers,
            start,
            status,
        )
        for ts_ns, offset, captured, length, ip_headers, start, status in zip(
            *(records[name].tolist() for name in ("ts_ns", "offset", "captured", "length")),
            *(packets[name].tolist() for name in ("ip_headers", "link_length", "status")),
            strict=True,
        )
    ]


class _Core:
    """Knows the subscribers; the same seed and address always give the same session."""

    def __init__(self, options: EncapsulateOptions, inside: set[IPAddress]) -> None:
        self.sessions: dict[IPAddress, Subscriber] = {}
        self._options = options
        self._inside = inside
        self._teids: set[int] = set()

    def session(self, address: IPAddress) -> Subscriber | None:
        """Return the session of an inside host, None for any other address."""
        if address in self.sessions:
            return self.sessions[address]
        networks = self._options.inside
        if networks is None:
            belongs = address in self._inside
        else:
            belongs = _can_be_host(address) and any(address in network for network in networks)
        if not belongs:
            return None
        if len(self.sessions) >= MAX_SUBSCRIBERS:
            raise _too_many()
        self.sessions[address] = self._attach(address)
        return self.sessions[address]

    def _teid(self, wish: bytes) -> int:
        teid = int.from_bytes(wish, "big")
        while teid == 0 or teid in self._teids:
            teid = (teid + 1) % 2**32
        self._teids.add(teid)
        return teid

    def _attach(self, address: IPAddress) -> Subscriber:
        digest = sha256(f"{self._options.seed}/{address}".encode()).digest()
        gnb = digest[0] % self._options.gnbs
        upf = digest[1] % self._options.upfs
        ends: tuple[IPAddress, IPAddress]
        if self._options.outer_ipv6:
            ends = _GNB_IPV6 + gnb, _UPF_IPV6 + upf
        else:
            ends = _GNB_IPV4 + gnb, _UPF_IPV4 + upf
        return Subscriber(
            address=address,
            uplink_teid=self._teid(digest[4:8]),
            downlink_teid=self._teid(digest[8:12]),
            qfi=1 + digest[2] % 9,
            gnb=ends[0],
            upf=ends[1],
        )


def _find_inside(inputs: Captures, progress: Progress) -> set[IPAddress]:
    if "-" in as_names(inputs):
        raise CaptureError(
            "standard input can be read only once",
            where="-",
            hint="name the inside networks, or give a file",
        )
    finder, decoder = _Finder(), Decoder()
    with open_captures(inputs, progress=progress) as stream:
        for block in stream:
            for frame in _frames(block, decoder):
                try:
                    finder.see(_ip_packet(frame))
                except _Dropped:
                    continue
    return finder.found


def encapsulate(
    inputs: Captures,
    output: Path,
    *,
    options: EncapsulateOptions = EncapsulateOptions(),
    progress: Progress = SILENT,
) -> EncapsulateSummary:
    """Wrap the packets of captures in GTP-U and write them as one pcapng.

    Packets that were captured short stay short: the tunnel headers state the whole length, and
    the length on the wire grows by the headers. Fragments are not made, whatever the MTU. VLAN
    tags and link headers of the input are replaced by plain Ethernet.

    Parameters
    ----------
    inputs
        Files, globs, folders or "-", as `veilwatch.traffic.capture.open_captures` takes them.
        Without `options.inside` they are read twice.
    output
        The pcapng to write; its section comment says that the wrapping is synthetic.
    options
        See `EncapsulateOptions`.
    progress
        Told of each file.

    Raises
    ------
    CaptureError
        If an input cannot be read, or holds too many inside hosts.
    OutputError
        If the output cannot be written.
    """
    core = _Core(options, _find_inside(inputs, progress) if options.inside is None else set())
    summary = EncapsulateSummary(output, subscribers=core.sessions)
    decoder = Decoder()
    names = ", ".join(Path(name).name for name in as_names(inputs))
    comment = f"{_NOTICE} {names[:_MAX_NAMES]}; the traffic inside is as captured"
    with (
        open_captures(inputs, progress=progress) as stream,
        PcapngWriter(output, link=1, comment=comment, interface_name="n3") as writer,
    ):
        for block in stream:
            for frame in _frames(block, decoder):
                summary.read += 1
                try:
                    packet = _ip_packet(frame)
                    sender, receiver = core.session(packet.source), core.session(packet.destination)
                    subscriber = sender or receiver
                    if subscriber is None:
                        raise _Dropped("outside")
                    if packet.length > MAX_INNER:
                        raise _Dropped("too_long")
                except _Dropped as drop:
                    summary.dropped[drop.reason] += 1
                    continue
                wrapped = wrap(
                    packet.data,
                    subscriber,
                    uplink=sender is not None,
                    pdu_session=options.pdu_session,
                    length=packet.length,
                )
                writer.write(frame.ts_ns, wrapped, len(wrapped) + packet.length - len(packet.data))
                if sender is not None:
                    summary.uplink += 1
                else:
                    summary.downlink += 1
        summary.captures = stream.report
    return summary


def parse_networks(texts: Sequence[str]) -> list[IPNetwork]:
    """Turn addresses and networks as people write them into networks.

    Raises
    ------
    CaptureError
        If a text is neither.
    """
    found = []
    for text in texts:
        try:
            found.append(ip_network(text, strict=False))
        except ValueError as error:
            raise CaptureError(
                "not an address or network", where=text, hint="write it as 10.0.0.0/8"
            ) from error
    return found
