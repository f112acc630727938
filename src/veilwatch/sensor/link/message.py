"""How a parcel looks on the socket: a header, then the table as an Arrow stream; and its answer."""

from __future__ import annotations

import io
import struct
from typing import Final, NamedTuple

import polars as pl

from veilwatch.schema.flows import FlowTable
from veilwatch.sensor.link.parcel import Kind, Parcel

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Largest message: twice the largest table, as its size is an estimate."""

MESSAGE_S: Final = 5.0
"""How long a message may take from its first byte to its last: what is local and slower hangs,
and others wait behind it."""

ACK: Final = struct.Struct(">Q")
"""Answer to a message: its number."""

REFUSED: Final = 0
"""Answer to a message that the receiver will never take; messages are numbered from 1 on."""

HEADER: Final = struct.Struct(">4sBB2xQQqqII")

_MAGIC: Final = b"VWL1"


class Header(NamedTuple):
    """What comes before a table.

    Attributes
    ----------
    kind, archive, now_ns, made_ns
        See `Parcel`.
    run, number
        Which process sent it, and its how many-th message it is.
    rows, length
        Rows of the table, and the bytes that it takes.
    """

    kind: Kind
    archive: bool
    run: int
    number: int
    now_ns: int
    made_ns: int
    rows: int
    length: int


def encode(parcel: Parcel, run: int, number: int) -> bytes:
    """Return the message that carries a parcel."""
    stream = io.BytesIO(bytes(HEADER.size))
    stream.seek(HEADER.size)
    parcel.table.frame.write_ipc_stream(stream)
    length = stream.tell() - HEADER.size
    stream.seek(0)
    stream.write(
        HEADER.pack(
            *(_MAGIC, parcel.kind, parcel.archive, run, number),
            *(parcel.now_ns, parcel.made_ns, len(parcel.table), length),
        )
    )
    return stream.getvalue()


def decode_header(head: bytes | bytearray) -> Header | None:
    """Return what a header says, None where it is none or names a table beyond `MAX_MESSAGE`."""
    magic, kind, archive, run, number, now_ns, made_ns, rows, length = HEADER.unpack(head)
    if magic != _MAGIC or length > MAX_MESSAGE or kind not in tuple(Kind):
        return None
    return Header(Kind(kind), bool(archive), run, number, now_ns, made_ns, rows, length)


def decode_table(body: bytearray, rows: int) -> FlowTable | None:
    """Return the table in a message, None where it is none."""
    try:
        table = FlowTable(pl.read_ipc_stream(io.BytesIO(body))).check()
    except Exception:  # whatever a reader of foreign bytes raises: it must not end the receiver
        return None
    return table if len(table) == rows else None
