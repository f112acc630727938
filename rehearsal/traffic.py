"""What is played: captures of a corpus, in GTP-U, each with subscriber addresses of its own.

Inner packets, their gaps and cut lengths stay as captured; only the subscribers' addresses are
replaced, with the checksums that cover them. Times of the background and of the infections are
their own. The load beside them is benign traffic pressed into a rate: its times are not its own.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from rehearsal.replay import split_directions
from veilwatch.corpus.encapsulate import EncapsulateOptions, encapsulate
from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.corpus.tunnel import word_sum
from veilwatch.errors import VeilwatchError
from veilwatch.traffic.capture import PcapWriter, open_captures

NS: Final = 10**9

MAX_FILE_BYTES: Final = 4 << 20
"""Largest capture taken: wrapping runs in Python, some 30,000 packets a second."""

MAX_BACKGROUND: Final = 80_000
"""Packets of the background, at its own pace."""

LOOP_S: Final = 8.0
"""Length of the load's loop: a flow that has closed is forgotten after 5 s, so that the next turn
begins flows and does not repeat packets."""

MAX_LOAD: Final = 800_000
"""Packets of the load's loop: a loop of 8 s at 100,000 a second, some 200 MB in tcpreplay's
memory."""

MAX_TURN: Final = 80_000
"""Packets of the load that are wrapped; more of them are the same under other addresses."""

MAX_OF_ONE: Final = 6_000
"""Packets of one benign capture: no capture is most of the background."""

MAX_INFECTION: Final = 20_000
"""Packets of one infection."""

LEAST_INFECTION: Final = 30
"""Packets that an infection has within its time: fewer show nothing."""

MAX_HOSTS: Final = 4
"""Subscribers of an infected capture: one that holds a whole network has no one infected host."""

LATEST_START: Final = 0.5
"""Share of the run after which no infection begins, so that each has time to show itself."""

UNCONFIRMED: Final = ("unspecified", "unverified")
"""Parts of family names that no infection played here has."""

LOAD_NETWORKS: Final = ("172.30.0.0/15", "fd72:6568:6561:1::/64")
"""Subscribers of the load."""

_POOLS: Final = int(IPv4Address("172.28.0.0")), int(IPv6Address("fd72:6568:6561::"))
_LOAD_POOLS: Final = int(IPv4Address("172.30.0.0")), int(IPv6Address("fd72:6568:6561:1::"))
TEID_STEP: Final = 0x9E3779B1
"""What a turn adds to TEIDs: odd, so that turns share none but by chance."""

_TEID: Final = slice(46, 50)
_FRAME_INNER: Final = 58
"""Ethernet, IPv4, UDP, GTP-U and a PDU session container, as `corpus.tunnel` writes them."""


@dataclass
class Played:
    """A capture in GTP-U.

    Attributes
    ----------
    entry
        Where it comes from.
    packets
        Time since its first packet in ns, frame.
    hosts
        Its subscribers' addresses by packets.
    """

    entry: CaptureEntry
    packets: list[tuple[int, bytes]] = field(default_factory=list)
    hosts: Counter[str] = field(default_factory=Counter)
    uplink: int = 0


@dataclass
class Infection:
    """One infected capture that is played.

    Attributes
    ----------
    file
        What tcpreplay sends.
    begins_s
        When, after the beginning of the run.
    """

    family: str
    ransomware: bool
    capture: str
    group: str
    file: Path
    hosts: list[str]
    packets: int
    span_s: float
    begins_s: float


@dataclass
class Traffic:
    """All of it.

    Attributes
    ----------
    background, load
        Files; None where there is nothing.
    background_hosts, load_hosts
        Addresses of subscribers in them.
    held_out
        Groups of all captures that are played.
    uplink
        Packets of one loop of each file that go up.
    """

    background: Path
    background_packets: int
    background_hosts: set[str]
    load: Path
    load_packets: int
    load_hosts: set[str]
    infections: list[Infection]
    held_out: set[str]
    emulated: bool
    bytes_a_packet: float


class _Addresses:
    """Subscriber addresses that nobody else in the rehearsal has."""

    def __init__(self, pools: tuple[int, int]) -> None:
        self._pools = pools
        self._given = 0

    def take(self, version: int) -> bytes:
        self._given += 1
        if version == 4:
            return (self._pools[0] + self._given).to_bytes(4, "big")
        return (self._pools[1] + self._given).to_bytes(16, "big")


class Wrapper:
    """Puts captures into GTP-U.

    Parameters
    ----------
    first
        Seed of the first capture's tunnels; each has one of its own.
    pools
        Where subscriber addresses begin, IPv4 and IPv6.
    """

    def __init__(self, first: int = 0, pools: tuple[int, int] = _POOLS) -> None:
        self._addresses = _Addresses(pools)
        self._number = first

    def wrap(self, entry: CaptureEntry, *, seconds: float, packets: int) -> Played:
        """Return the beginning of a capture, at most so long and so many packets."""
        self._number += 1
        with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
            file, known = entry.file, []
            if entry.extra.get("emulated") != "1":  # the lab's are in GTP-U already
                file = Path(folder, "wrapped.pcapng")
                summary = encapsulate(
                    [entry.file], file, options=EncapsulateOptions(seed=self._number)
                )
                known = [address.packed for address in summary.subscribers]
            mapping = {old: self._addresses.take(4 if len(old) == 4 else 6) for old in known}
            played = Played(entry)
            first_ns: int | None = None
            for ts_ns, frame in _frames(file):
                first_ns = ts_ns if first_ns is None else first_ns
                if ts_ns - first_ns > seconds * NS or len(played.packets) >= packets:
                    break
                self._add(played, mapping, ts_ns - first_ns, frame)
        return played

    def _add(
        self, played: Played, mapping: dict[bytes, bytes], at_ns: int, frame: bytearray
    ) -> None:
        if len(frame) < _FRAME_INNER + 20:
            return
        uplink = frame[_FRAME_INNER - 3] >> 4 == 1
        version = frame[_FRAME_INNER] >> 4
        start, width = (_FRAME_INNER + 12, 4) if version == 4 else (_FRAME_INNER + 8, 16)
        if len(frame) < start + 2 * width:
            return
        ends = [
            bytes(frame[start : start + width]),
            bytes(frame[start + width : start + 2 * width]),
        ]
        own = ends[0 if uplink else 1]
        if own not in mapping:
            mapping[own] = self._addresses.take(version)
        readdress(frame, [mapping.get(end, end) for end in ends])
        played.hosts[str(ip_address(mapping[own]))] += 1
        played.uplink += uplink
        # A capture whose clock ran backwards is played in the order that it has.
        last_ns = played.packets[-1][0] if played.packets else 0
        played.packets.append((max(at_ns, last_ns), bytes(frame)))

    def again(self, played: Played, hosts: Sequence[str]) -> Callable[[bytes, int], bytes]:
        """Return what gives packets of a capture other subscribers and tunnels, turn by turn.

        Parameters
        ----------
        hosts
            The capture's subscribers; those of the turn are added to `played.hosts`.
        """
        mapping = {}
        for host in hosts:
            old = ip_address(host)
            mapping[old.packed] = self._addresses.take(old.version)
            played.hosts[str(ip_address(mapping[old.packed]))] += 1

        def changed(frame: bytes, number: int) -> bytes:
            copy = bytearray(frame)
            readdress(copy, [mapping.get(end, end) for end in _ends(copy)])
            teid = int.from_bytes(copy[_TEID], "big") + number * TEID_STEP
            copy[_TEID] = (teid % 2**32).to_bytes(4, "big")
            return bytes(copy)

        return changed


def _ends(frame: bytearray) -> tuple[bytes, bytes]:
    """Return source and destination of an inner packet; shorter where it is cut within them."""
    start, width = (12, 4) if frame[_FRAME_INNER] >> 4 == 4 else (8, 16)
    start += _FRAME_INNER
    middle = start + width
    return bytes(frame[start:middle]), bytes(frame[middle : middle + width])


def readdress(frame: bytearray, ends: Sequence[bytes]) -> None:
    """Give an inner packet other addresses; its checksums stay as right as they were.

    Parameters
    ----------
    frame
        Ethernet, GTP-U over IPv4 and the inner packet.
    ends
        Source and destination, of the width that the packet has.
    """
    ip = _FRAME_INNER
    new = b"".join(ends)
    version = frame[ip] >> 4
    if version == 4:
        start, protocol = ip + 12, frame[ip + 9]
        layer4 = ip + (frame[ip] & 15) * 4
        later = int.from_bytes(frame[ip + 6 : ip + 8], "big") & 0x1FFF
    else:
        start, protocol, layer4, later = ip + 8, frame[ip + 6], ip + 40, 0
    old = bytes(frame[start : start + len(new)])
    frame[start : start + len(new)] = new
    if version == 4:
        _adjust(frame, ip + 10, old, new)
    place = {6: 16, 17: 6}.get(protocol)
    if place is not None and not later and layer4 + place + 2 <= len(frame):
        at = layer4 + place
        if protocol == 6 or frame[at : at + 2] != b"\0\0":
            _adjust(frame, at, old, new)
    frame[40:42] = b"\0\0"  # the outer UDP checksum: none, as GTP-U commonly has


def _adjust(frame: bytearray, at: int, old: bytes, new: bytes) -> None:
    """Correct a checksum for changed words (RFC 1624)."""
    before = int.from_bytes(frame[at : at + 2], "big")
    total = (~before & 0xFFFF) + (0xFFFF - word_sum(old)) + word_sum(new)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    frame[at : at + 2] = (~total & 0xFFFF).to_bytes(2, "big")


def make_traffic(
    entries: Sequence[CaptureEntry],
    folder: Path,
    *,
    seed: int,
    seconds: float,
    infections: int,
    rate: int,
) -> Traffic:
    """Choose captures, wrap them and write what is to be sent.

    Raises
    ------
    VeilwatchError
        If the corpus has not enough captures.
    """
    chance = random.Random(seed)
    wrapper = Wrapper()
    small = [entry for entry in entries if entry.file.stat().st_size <= MAX_FILE_BYTES]
    benign = [entry for entry in small if entry.label == "benign"]
    chance.shuffle(benign)
    sick = _infections(small, wrapper, folder, chance, seconds, infections)
    # Half of the benign captures at most: the other half is for learning.
    background = _background(benign[: len(benign) // 4], wrapper, chance, seconds)
    wanted = min(MAX_LOAD, int(rate * LOOP_S))
    load = _load(benign[len(benign) // 4 : len(benign) // 2], chance, wanted)
    if not background[0] or not load[0] or len(sick) < infections:
        raise VeilwatchError("the corpus has too few captures for a rehearsal")
    files = []
    for name, packets in (("background", background[0]), ("load", load[0])):
        file = folder / f"{name}.pcap"
        _write(file, packets)
        files.append(file)
    played = [*background[1], *load[1]]
    size = sum(len(frame) for _, frame in load[0]) / len(load[0])
    return Traffic(
        files[0], len(background[0]), _hosts(background[1]),
        files[1], len(load[0]), _hosts(load[1]),
        sick,
        {item.group for item in sick} | {one.entry.group for one in played},
        any(entry.extra.get("emulated") == "1" for entry in entries),
        round(size, 1),
    )  # fmt: skip


def _infections(
    entries: Sequence[CaptureEntry],
    wrapper: Wrapper,
    folder: Path,
    chance: random.Random,
    seconds: float,
    wanted: int,
) -> list[Infection]:
    """Play captures of as many families as are wanted, every second of them ransomware."""
    by_family: dict[str, list[CaptureEntry]] = {}
    for entry in entries:
        if entry.label == "malicious" and not any(word in entry.family for word in UNCONFIRMED):
            by_family.setdefault(entry.family, []).append(entry)
    names = sorted(by_family)
    chance.shuffle(names)
    ransomware = [name for name in names if by_family[name][0].is_ransomware]
    others = [name for name in names if name not in ransomware]
    out: list[Infection] = []
    # Where there are fewer families than infections, families come again with other captures.
    used: set[str] = set()
    while len(out) < wanted and (ransomware or others):
        turn = ransomware if (len(out) % 2 == 0 and ransomware) or not others else others
        family = turn.pop(0)
        captures = [entry for entry in by_family[family] if entry.name not in used]
        chance.shuffle(captures)
        begins_s = round(chance.uniform(0.05, LATEST_START) * seconds, 1)
        for entry in captures:
            used.add(entry.name)
            played = wrapper.wrap(entry, seconds=seconds - begins_s - 2, packets=MAX_INFECTION)
            if len(played.packets) < LEAST_INFECTION or len(played.hosts) > MAX_HOSTS:
                continue
            file = folder / f"infection-{len(out)}.pcap"
            _write(file, played.packets)
            hosts = [host for host, _ in played.hosts.most_common()]
            span_s = played.packets[-1][0] / NS
            item = Infection(
                family, entry.is_ransomware, entry.name, entry.group, file, hosts,
                len(played.packets), round(span_s, 1), begins_s,
            )  # fmt: skip
            out.append(item)
            turn.append(family)
            break
    return sorted(out, key=lambda item: item.begins_s)


def _background(
    entries: Sequence[CaptureEntry], wrapper: Wrapper, chance: random.Random, seconds: float
) -> tuple[list[tuple[int, bytes]], list[Played]]:
    """Merge captures, each from a moment of its own, at the pace that they have."""
    packets: list[tuple[int, bytes]] = []
    chosen = []
    for entry in entries:
        begins_s = chance.uniform(0, 0.7) * seconds
        played = wrapper.wrap(entry, seconds=seconds - begins_s - 1, packets=MAX_OF_ONE)
        if len(packets) + len(played.packets) > MAX_BACKGROUND:
            break
        packets += [(at_ns + int(begins_s * NS), frame) for at_ns, frame in played.packets]
        chosen.append(played)
    packets.sort(key=lambda item: item[0])
    return packets, chosen


def _load(
    entries: Sequence[CaptureEntry], chance: random.Random, wanted: int
) -> tuple[list[tuple[int, bytes]], list[Played]]:
    """Interleave captures by how far each is, whatever time that takes it, in several turns."""
    wrapper = Wrapper(1_000_000, _LOAD_POOLS)
    chosen: list[Played] = []
    packets = 0
    for entry in entries:
        if packets >= min(MAX_TURN, wanted):
            break
        chosen.append(wrapper.wrap(entry, seconds=math.inf, packets=MAX_OF_ONE))
        packets += len(chosen[-1].packets)
    turn: list[tuple[float, Played, bytes]] = []
    for played in chosen:
        begins, step = chance.random(), 1 / max(1, len(played.packets))
        for number, (_, frame) in enumerate(played.packets):
            turn.append((begins + number * step, played, frame))
    turn.sort(key=lambda item: item[0])
    out = [frame for _, _, frame in turn]
    first = {id(played): list(played.hosts) for played in chosen}
    for number in range(1, -(-wanted // max(1, packets))):
        other = {id(played): wrapper.again(played, first[id(played)]) for played in chosen}
        out += [other[id(played)](frame, number) for _, played, frame in turn]
    return [(at, frame) for at, frame in enumerate(out)], chosen


def _hosts(played: Sequence[Played]) -> set[str]:
    return {host for one in played for host in one.hosts}


def _write(file: Path, packets: Sequence[tuple[int, bytes]]) -> None:
    # Times of day are tcpreplay's business: it keeps only the gaps.
    with PcapWriter(file, link=1) as writer:
        for at_ns, frame in packets:
            writer.write(NS + at_ns, frame)
    split_directions(file)


def _frames(file: Path) -> Iterator[tuple[int, bytearray]]:
    with open_captures([file]) as stream:
        for block in stream:
            records = block.records
            for ts_ns, offset, captured in zip(
                records["ts_ns"].tolist(),
                records["offset"].tolist(),
                records["captured"].tolist(),
                strict=True,
            ):
                yield ts_ns, bytearray(block.buffer[offset : offset + captured].tobytes())
