"""Control messages built by hand from their specifications, and blocks of packets with them."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address

import numpy as np
import polars as pl

from veilwatch.schema.flows import IDENTITY_COLUMNS
from veilwatch.schema.packets import PACKET_DTYPE, PacketBatch, Status
from veilwatch.traffic.subscriber import Directory, KeyRing

S = 10**9
START = 1_700_000_000 * S
IMSI = "001010123456789"
MME, SGW, PGW, ENB, ENB2, UPF, SMF = (f"192.0.2.{n}" for n in (1, 2, 3, 10, 11, 20, 21))
UE = "10.45.0.2"


def address(text: str) -> int:
    found = ip_address(text)
    return 0xFFFF << 32 | int(found) if found.version == 4 else int(found)


def packed(text: str) -> bytes:
    return ip_address(text).packed


# ---- GTPv2-C (TS 29.274)


def ie(kind: int, value: bytes, instance: int = 0) -> bytes:
    return struct.pack("!BHB", kind, len(value), instance) + value


def bcd(digits: str) -> bytes:
    digits += "f" * (len(digits) % 2)
    return bytes(int(digits[i + 1] + digits[i], 16) for i in range(0, len(digits), 2))


def fteid(interface: int, teid: int, where: str, instance: int = 0) -> bytes:
    version = 0x80 if ip_address(where).version == 4 else 0x40
    return ie(87, struct.pack("!BI", version | interface, teid) + packed(where), instance)


def bearer(ebi: int, *parts: bytes, instance: int = 0) -> bytes:
    return ie(93, ie(73, bytes([ebi])) + b"".join(parts), instance)


def apn(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))


def paa(where: str) -> bytes:
    return ie(79, b"\x01" + packed(where))


def uli(tac: int, eci: int) -> bytes:
    plmn = b"\x00\xf1\x10"  # 001-01
    return ie(86, b"\x18" + plmn + struct.pack("!H", tac) + plmn + struct.pack("!I", eci))


def cause(value: int = 16) -> bytes:
    return ie(2, bytes([value, 0]))


def gtpv2(kind: int, teid: int, sequence: int, *parts: bytes, piggybacked: bool = False) -> bytes:
    body = struct.pack("!I", teid) + sequence.to_bytes(3, "big") + b"\0" + b"".join(parts)
    return struct.pack("!BBH", 0x48 | piggybacked << 4, kind, len(body)) + body


# ---- PFCP (TS 29.244)


def pie(kind: int, *parts: bytes) -> bytes:
    value = b"".join(parts)
    return struct.pack("!HH", kind, len(value)) + value


def pfcp(kind: int, seid: int | None, sequence: int, *parts: bytes, more: bool = False) -> bytes:
    body = b"" if seid is None else struct.pack("!Q", seid)
    body += sequence.to_bytes(3, "big") + b"\0" + b"".join(parts)
    flags = 0x20 | (seid is not None) | more << 2
    return struct.pack("!BBH", flags, kind, len(body)) + body


def fseid(seid: int, where: str) -> bytes:
    return pie(57, struct.pack("!BQ", 2, seid), packed(where))


def local(teid: int, where: str) -> bytes:
    return pie(21, struct.pack("!BI", 1, teid), packed(where))


CHOOSE = pie(21, b"\x05")  # CH and V4


def pdr(number: int, interface: int, *parts: bytes) -> bytes:
    return pie(1, pie(56, struct.pack("!H", number)), pie(2, pie(20, bytes([interface])), *parts))


def created(number: int, *parts: bytes) -> bytes:
    return pie(8, pie(56, struct.pack("!H", number)), *parts)


def ue_ip(where: str) -> bytes:
    return pie(93, b"\x02", packed(where))


def far(
    number: int,
    interface: int,
    peer: tuple[int, str] | None,
    *,
    update: bool = False,
    action: int = 2,
) -> bytes:
    inner = pie(42, bytes([interface]))
    if peer is not None:
        inner += pie(84, struct.pack("!HI", 0x0100, peer[0]), packed(peer[1]))
    kinds = (10, 11) if update else (3, 4)
    parts = [pie(108, struct.pack("!I", number)), pie(44, bytes([action]))]
    if peer is not None or not update:
        parts.append(pie(kinds[1], inner))
    return pie(kinds[0], *parts)


# ---- GTPv1-C (TS 29.060)


def gtpv1(kind: int, teid: int, sequence: int, *parts: bytes) -> bytes:
    body = struct.pack("!HBB", sequence, 0, 0) + b"".join(parts)
    return struct.pack("!BBHI", 0x32, kind, len(body), teid) + body


def tv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + value


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


# ---- blocks of packets


def block(*packets: tuple[str, str, int, int, bytes], depth: int = 0) -> PacketBatch:
    """(source, destination, port, ns, payload) as the decoder would hand them over."""
    rows = np.zeros(len(packets), PACKET_DTYPE)
    data = b""
    for row, (src, dst, port, ts_ns, payload) in zip(rows, packets, strict=True):
        for name, text in (("src", src), ("dst", dst)):
            row[f"{name}_hi"], row[f"{name}_lo"] = divmod(address(text), 1 << 64)
        row["src_port"] = row["dst_port"] = port
        row["protocol"], row["status"], row["ip_version"] = 17, int(Status.OK), 4
        row["ts_ns"], row["gtp_depth"] = ts_ns, depth
        row["payload_offset"] = len(data)
        row["payload_length"] = row["payload_captured"] = len(payload)
        data += payload
    return PacketBatch(np.frombuffer(bytearray(data or b"\0"), np.uint8), rows)


class Core:
    """A directory and nodes that talk before it: each message a second after the last."""

    def __init__(self, keys: KeyRing | None = None) -> None:
        self.directory = Directory(keys or KeyRing(bytes(range(32))))
        self.now = START
        self.sequence = 0

    def send(self, src: str, dst: str, payload: bytes, port: int = 2123) -> None:
        self.now += S
        self.directory.observe(block((src, dst, port, self.now, payload)))

    def ask(
        self, src: str, dst: str, kind: int, teids: tuple[int, int], asked: bytes, answer: bytes
    ) -> None:
        """Send a GTPv2-C request and its response with one sequence number."""
        self.sequence += 1
        self.send(src, dst, gtpv2(kind, teids[0], self.sequence, asked))
        self.send(dst, src, gtpv2(kind + 1, teids[1], self.sequence, answer))

    def attach(
        self,
        *,
        imsi: str = IMSI,
        ue: str = UE,
        sgw: int = 0x20,
        mme: int = 0x10,
        core: int = 0x200,
        name: str = "internet",
        ebi: int = 5,
    ) -> None:
        """Create Session on S11."""
        self.ask(
            MME,
            SGW,
            32,
            (0, mme),
            ie(1, bcd(imsi)) + ie(71, apn(name)) + ie(82, b"\x06") + uli(1, 257)
            + fteid(10, mme, MME) + bearer(ebi),
            cause() + fteid(11, sgw, SGW) + paa(ue)
            + bearer(ebi, cause(), fteid(1, core, SGW)),
        )  # fmt: skip

    def modify(
        self, access: int, enb: str, *, sgw: int = 0x20, mme: int = 0x10, ebi: int = 5
    ) -> None:
        """Modify Bearer on S11: the eNB's end."""
        self.ask(
            MME,
            SGW,
            34,
            (sgw, mme),
            bearer(ebi, fteid(0, access, enb)),
            cause() + bearer(ebi, cause()),
        )

    def detach(self, *, sgw: int = 0x20, mme: int = 0x10, ebi: int = 5) -> None:
        """Delete Session on S11."""
        self.ask(MME, SGW, 36, (sgw, mme), ie(73, bytes([ebi])), cause())

    def pfcp(self, kind: int, seids: tuple[int, int], asked: bytes, answer: bytes) -> None:
        """Send a PFCP request of the SMF and the UPF's response."""
        self.sequence += 1
        self.send(SMF, UPF, pfcp(kind, seids[0], self.sequence, asked), 8805)
        self.send(UPF, SMF, pfcp(kind + 1, seids[1], self.sequence, answer), 8805)

    def bound(self) -> dict[tuple[str, int], int]:
        """Session by F-TEID, from the bindings."""
        found = {}
        for row in self.directory.bindings():
            where = int(row["address_hi"]) << 64 | int(row["address_lo"])
            text = str(IPv4Address(where & 0xFFFFFFFF))
            found[text, int(row["teid"])] = int(row["session"])
        return found


def flows(*rows: dict[str, object]) -> pl.DataFrame:
    """The identity columns of a flow table."""
    columns = []
    for column in IDENTITY_COLUMNS:
        empty = "" if column.dtype == pl.String else 0
        values = [row.get(column.name, empty) for row in rows]
        columns.append(pl.Series(column.name, values, column.dtype))
    if any("session" in row for row in rows):
        numbers = pl.Series("session", [row.get("session", 0) for row in rows], pl.Int64)
        columns = [column for column in columns if column.name != "session"] + [numbers]
    return pl.DataFrame(columns)


def flow(
    src: str,
    dst: str,
    *,
    forth: tuple[str, str, int] | None = None,
    back: int = 0,
    first: int = START,
    last: int | None = None,
    direction: str = "",
    **more: object,
) -> dict[str, object]:
    """A flow; `forth` is (outer source, outer destination, TEID), `back` the TEID of replies."""
    outer = forth or ("", "", 0)
    return {
        "src_ip": src,
        "dst_ip": dst,
        "gtp_depth": int(forth is not None),
        "outer_src_ip": outer[0],
        "outer_dst_ip": outer[1],
        "fwd_teid": outer[2],
        "bwd_teid": back,
        "first_ns": first,
        "last_ns": first + S if last is None else last,
        "gtp_direction": direction,
        **more,
    }
