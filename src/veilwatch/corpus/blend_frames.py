"""Packets of a blend: those of the capture as Ethernet, those of a used host as if they were its.

Both are blocks of records again, made while their files are read, so that they merge by time in
bounded memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from veilwatch.corpus.readdress import readdress
from veilwatch.corpus.tunnel import MAX_INNER, Subscriber, wrap
from veilwatch.schema.packets import RECORD_DTYPE, PacketBatch, RawBlock, Status
from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.decode.kernel import MAX_LINK_LENGTH
from veilwatch.traffic.pipeline import FlowReader

ETHERNET: Final = 1
"""LINKTYPE_ETHERNET, of every frame that is made."""

MAX_FRAGMENTED: Final = 4096
"""Fragmented packets whose later fragments are waited for: senders finish one within a second."""

_MACS: Final = 12
_ROUTER: Final = bytes.fromhex("02ffffff")  # beginning of locally administered MACs
_FIRST: Final = 1  # `fragment` of a first fragment


class _Frame(NamedTuple):
    ts_ns: int
    data: bytes
    length: int  # on the wire
    interface: int


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The GTP-U tunnel of a host.

    Attributes
    ----------
    session
        Whose it is, and its end points.
    pdu_session
        Whether its packets have a PDU session container.
    """

    session: Subscriber
    pdu_session: bool


@dataclass(frozen=True, slots=True)
class Move:
    """How packets of a used host become those of another host.

    Attributes
    ----------
    flows
        flow_id of the flows that are moved, as a reader of that capture alone numbers them.
    shift_ns
        Added to their times.
    old, new
        Address of the used host, and of the other one: 16 bytes, IPv4 as ::ffff:a.b.c.d.
    old_mac
        MAC of the used host, replaced wherever a link header has it; None where none shows it.
    mac
        Of the other host.
    tunnel
        The other host's GTP-U tunnel; None outside of one.
    """

    flows: npt.NDArray[np.int64]
    shift_ns: int
    old: bytes
    new: bytes
    old_mac: bytes | None
    mac: bytes
    tunnel: Tunnel | None = None


def host_mac(file: Path, host: bytes) -> bytes | None:
    """Return the MAC from which a host (16 bytes) first sends; None if no Ethernet shows one."""
    decoder = Decoder()
    with open_captures([file]) as stream:
        for block in stream:
            packets = decoder.decode(block).packets
            sent = _is(packets, "src", host) & (packets["ip_headers"] == 1)
            for row in np.flatnonzero(sent & (block.records["link"] == ETHERNET)):
                start = int(block.records["offset"][row])
                return block.buffer[start + 6 : start + _MACS].tobytes()
    return None


def base_blocks(
    file: Path, source: int, host: bytes, mac: bytes
) -> Generator[RawBlock, None, None]:
    """Yield the packets of a capture as Ethernet frames.

    Frames that are Ethernet stay as they are. Of other links the outermost IP packet gets a header
    with the `mac` of its busiest `host` (16 bytes), and what is no IP is left out.
    """
    decoder = Decoder()
    with open_captures([file]) as stream:
        for block in stream:
            if np.all(block.records["link"] == ETHERNET):
                records = block.records.copy()
                records["source"] = source
                yield RawBlock(block.buffer, records)
            else:
                frames = _as_ethernet(block, decoder.decode(block), host, mac)
                yield from _blocks(frames, source)


def moved_blocks(file: Path, source: int, move: Move) -> Generator[RawBlock, None, None]:
    """Yield the packets of a used host's flows at their new time and address.

    What lies within tunnels is taken out of them. Where both captures are Ethernet without GTP-U,
    the link header is kept but for the host's MAC.
    """
    whole = _Fragments()
    with FlowReader([file]) as reader:
        for block, batch in reader.packets():
            wanted = np.isin(batch.packets["flow_id"], move.flows)
            rows = whole.complete(batch.packets, wanted)
            yield from _blocks(_moved(block, batch, rows, move), source)


class _Fragments:
    """Finds later fragments, which are part of no flow, by the first ones."""

    def __init__(self) -> None:
        self._begun: OrderedDict[int, int] = OrderedDict()  # IP headers by fragment key

    def complete(
        self, packets: npt.NDArray[np.void], wanted: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """Return the rows wanted and those of their later fragments."""
        wanted = wanted.copy()
        keys, status = packets["fragment_key"], packets["status"]
        for row in np.flatnonzero(keys != 0):
            key, depth = int(keys[row]), int(packets["ip_headers"][row])
            if status[row] == Status.LATER_FRAGMENT:
                # Of an outer packet only the first fragment shows whose it is.
                wanted[row] = self._begun.get(key) == depth
            elif wanted[row] and packets["fragment"][row] == _FIRST:
                self._begun[key] = depth
                if len(self._begun) > MAX_FRAGMENTED:
                    self._begun.popitem(last=False)
            else:
                self._begun.pop(key, None)
        return np.flatnonzero(wanted)


def _moved(
    block: RawBlock, batch: PacketBatch, rows: npt.NDArray[np.int64], move: Move
) -> Iterator[_Frame]:
    records, packets = block.records[rows], batch.packets[rows]
    plain = (packets["ip_headers"] == 1) & (records["link"] == ETHERNET)
    columns = zip(
        *(records[name].tolist() for name in ("ts_ns", "offset", "captured", "length")),
        records["interface"].tolist(),
        *(packets[name].tolist() for name in ("ip_offset", "ip_length", "ip_version")),
        packets["interface"].tolist(),
        _is(packets, "src", move.old).tolist(),
        plain.tolist(),
        strict=True,
    )
    for ts_ns, start, captured, length, interface, at, size, version, *how in columns:
        place, sends, as_is = how
        frame = block.buffer[start : start + captured].tobytes()
        at -= start
        packet = bytearray(frame[at : at + size])
        readdress(packet, move.old, move.new)
        if move.tunnel is not None:
            if size > MAX_INNER:
                continue
            data = wrap(
                bytes(packet),
                move.tunnel.session,
                uplink=sends,
                pdu_session=move.tunnel.pdu_session,
                length=size,
            )
            length = len(data) + size - len(packet)
        elif as_is and at >= _MACS:
            # Of a packet that was captured on both sides of a router each copy has its own MACs.
            macs = (move.mac if mac == move.old_mac else mac for mac in (frame[:6], frame[6:_MACS]))
            data = b"".join((*macs, frame[_MACS:at], packet, frame[at + size :]))
        else:
            head = _header(move.mac, place, version, sends=sends)
            data, length = head + packet, len(head) + size
        yield _Frame(ts_ns + move.shift_ns, data, max(length, len(data)), interface)


def _as_ethernet(block: RawBlock, batch: PacketBatch, host: bytes, mac: bytes) -> Iterator[_Frame]:
    records, packets = block.records, batch.packets
    columns = zip(
        *(records[name].tolist() for name in ("ts_ns", "offset", "captured", "length")),
        *(records[name].tolist() for name in ("link", "interface")),
        *(packets[name].tolist() for name in ("ip_headers", "link_length", "interface")),
        _is(packets, "src", host).tolist(),
        strict=True,
    )
    for ts_ns, start, captured, length, link, interface, headers, at, place, sends in columns:
        frame = block.buffer[start : start + captured].tobytes()
        if link == ETHERNET:
            yield _Frame(ts_ns, frame, length, interface)
        elif headers and at < min(MAX_LINK_LENGTH, captured):
            head = _header(mac, place, frame[at] >> 4, sends=sends)
            length = len(head) + max(length, captured) - at
            yield _Frame(ts_ns, head + frame[at:], length, interface)


def _blocks(frames: Iterable[_Frame], source: int) -> Generator[RawBlock, None, None]:
    """Yield frames, those of one block at most, as a block; nothing without any."""
    kept = list(frames)
    if not kept:
        return
    records = np.zeros(len(kept), RECORD_DTYPE)
    sizes = [len(frame.data) for frame in kept]
    records["ts_ns"] = [frame.ts_ns for frame in kept]
    records["length"] = [frame.length for frame in kept]
    records["interface"] = [frame.interface for frame in kept]
    records["captured"] = sizes
    records["offset"] = np.cumsum([0, *sizes[:-1]])
    records["source"] = source
    records["link"] = ETHERNET
    yield RawBlock(np.frombuffer(b"".join(frame.data for frame in kept), np.uint8), records)


def _header(mac: bytes, place: int, version: int, *, sends: bool) -> bytes:
    """Return an Ethernet header between a host and a router.

    The router's MAC tells the place that a packet was seen at, as the link header did that is
    replaced: of copies of a packet the meter counts one.
    """
    router = _ROUTER + place.to_bytes(2, "big")
    ends = (router, mac) if sends else (mac, router)
    return b"".join((*ends, b"\x08\x00" if version == 4 else b"\x86\xdd"))


def _is(packets: npt.NDArray[np.void], end: str, address: bytes) -> Any:
    """Whether the innermost source ("src") or destination ("dst") is an address of 16 bytes."""
    high, low = (np.uint64(int.from_bytes(half, "big")) for half in (address[:8], address[8:]))
    return (packets[f"{end}_hi"] == high) & (packets[f"{end}_lo"] == low)
