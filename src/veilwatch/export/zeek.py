"""Flow tables as Zeek's conn.log, tab-separated or as JSON lines.

docs/export.md says which fields mean what they mean in Zeek, and where they differ.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Final

import polars as pl

from veilwatch.export.encoder import Encoder
from veilwatch.export.zeek_state import ICMP, TCP, UDP, conn_state, histories
from veilwatch.export.zeek_text import EMPTY, UNSET, json_text, tab_text

FIELDS: Final = {
    "ts": "time",
    "uid": "string",
    "id.orig_h": "addr",
    "id.orig_p": "port",
    "id.resp_h": "addr",
    "id.resp_p": "port",
    "proto": "enum",
    "service": "string",
    "duration": "interval",
    "orig_bytes": "count",
    "resp_bytes": "count",
    "conn_state": "string",
    "local_orig": "bool",
    "local_resp": "bool",
    "missed_bytes": "count",
    "history": "string",
    "orig_pkts": "count",
    "orig_ip_bytes": "count",
    "resp_pkts": "count",
    "resp_ip_bytes": "count",
    "tunnel_parents": "set[string]",
    "ip_proto": "count",
    # Ours.
    "vlan": "int",
    "orig_teid": "count",
    "resp_teid": "count",
    "ja3": "string",
    "ja3s": "string",
    "ja4": "string",
    "server_name": "string",
    "flow_id": "count",
    "parent_id": "count",
    "subscriber": "string",
}
"""Fields of a line and their Zeek types. `ip_proto` is Zeek's from version 7.1 on."""

SERVICES: Final = {"tls": "ssl", "kerberos": "krb", "dcerpc": "dce_rpc"}
"""Services that Zeek calls by another name."""

LOCAL_NETS: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16"),
            *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
            *("::/128", "::1/128", "100::/64", "2001::/23", "2001:db8::/32"),
            *("fc00::/7", "fe80::/10"),
        ),
    )
)
"""Networks that count as local: private and special ones (RFC 6890, RFC 6598), as in Zeek."""

_ICMP_ANSWERS: Final = {
    1: {8: 0, 0: 8, 10: 9, 9: 10, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17},
    58: {
        128: 129,
        129: 128,
        130: 131,
        131: 130,
        133: 134,
        134: 133,
        135: 136,
        136: 135,
        139: 140,
        140: 139,
        144: 145,
        145: 144,
    },
}
"""ICMP types that ask and answer (RFC 792, 950, 1256, 4443, 4861): Zeek's `id.resp_p`."""

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_UID_BYTES: Final = 12  # 96 bits, as in Zeek
_US: Final = 1000  # ns


def conn_log(flows: pl.DataFrame) -> pl.DataFrame:
    """Return the lines of a conn.log, null where a field is unset.

    Times and durations are microseconds as integers; `tunnel_parents` is a list.

    Parameters
    ----------
    flows
        Flow table (docs/flows.md).
    """
    lasts = pl.col("last_ns") > pl.col("first_ns")
    protocol = pl.col("protocol")
    icmp = protocol.is_in(ICMP)
    frame = flows.select(
        (pl.col("first_ns") // _US).alias("ts"),
        _identities(
            flows,
            *("outer_src_ip", "outer_dst_ip", "src_ip", "src_port", "dst_ip", "dst_port"),
            *("protocol", "first_ns"),
        ).alias("uid"),
        pl.col("src_ip").alias("id.orig_h"),
        pl.when(icmp).then(pl.col("icmp_type")).otherwise(pl.col("src_port")).alias("id.orig_p"),
        pl.col("dst_ip").alias("id.resp_h"),
        pl.when(icmp).then(_icmp_answer()).otherwise(pl.col("dst_port")).alias("id.resp_p"),
        pl.when(protocol == TCP)
        .then(pl.lit("tcp"))
        .when(protocol == UDP)
        .then(pl.lit("udp"))
        .when(icmp)
        .then(pl.lit("icmp"))
        .otherwise(pl.lit("unknown_transport"))
        .alias("proto"),
        _text("service").replace(SERVICES).alias("service"),
        pl.when(lasts).then(pl.col("last_ns") // _US - pl.col("first_ns") // _US).alias("duration"),
        pl.when(lasts).then(pl.col("fwd_stream_bytes")).alias("orig_bytes"),
        pl.when(lasts).then(pl.col("bwd_stream_bytes")).alias("resp_bytes"),
        conn_state().alias("conn_state"),
        _is_local(flows["src_ip"]).alias("local_orig"),
        _is_local(flows["dst_ip"]).alias("local_resp"),
        pl.lit(None, pl.UInt64).alias("missed_bytes"),
        histories(flows).alias("history"),
        pl.col("fwd_packets").alias("orig_pkts"),
        pl.col("fwd_bytes").alias("orig_ip_bytes"),
        pl.col("bwd_packets").alias("resp_pkts"),
        pl.col("bwd_bytes").alias("resp_ip_bytes"),
        _tunnels(flows).alias("tunnel_parents"),
        protocol.alias("ip_proto"),
        pl.when(pl.col("fwd_vlan") > 0).then(pl.col("fwd_vlan")).alias("vlan"),
        pl.when(pl.col("gtp_depth") > 0).then(pl.col("fwd_teid")).alias("orig_teid"),
        pl.when(pl.col("gtp_depth") > 0).then(pl.col("bwd_teid")).alias("resp_teid"),
        _text("ja3"),
        _text("ja3s"),
        _text("ja4"),
        _text("tls_sni").alias("server_name"),
        "flow_id",
        "parent_id",
        _text("subscriber"),
    )
    return frame.with_columns(pl.col("history").replace("", None))


class ConnLog(Encoder):
    """Tab-separated lines with Zeek's header and footer."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self._begun = False

    def _append(self, frame: pl.DataFrame) -> None:
        lines = conn_log(frame)
        self._begin()
        texts = lines.select(
            _seconds("ts"),
            _seconds("duration"),
            pl.col("local_orig", "local_resp").replace_strict(
                {True: "T", False: "F"}, return_dtype=pl.String
            ),
            pl.col("tunnel_parents").list.join(","),
            _escaped(lines["server_name"]).alias("server_name"),
        )
        rows = lines.with_columns(texts).select(pl.all().cast(pl.String).fill_null(UNSET))
        self._stream.write(
            rows.write_csv(include_header=False, separator="\t", quote_style="never").encode()
        )

    def finish(self) -> None:
        """Write the footer."""
        self._begin()
        self._stream.write(f"#close\t{_now()}\n".encode())

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        header = (
            "#separator \\x09",
            "#set_separator\t,",
            f"#empty_field\t{EMPTY}",
            f"#unset_field\t{UNSET}",
            "#path\tconn",
            f"#open\t{_now()}",
            "\t".join(("#fields", *FIELDS)),
            "\t".join(("#types", *FIELDS.values())),
        )
        self._stream.write("".join(f"{line}\n" for line in header).encode())


class ConnJson(Encoder):
    """One JSON object a line, as Zeek writes them: seconds as numbers, unset fields left out."""

    def _append(self, frame: pl.DataFrame) -> None:
        for row in conn_log(frame).iter_rows(named=True):
            known = {name: value for name, value in row.items() if value is not None}
            known |= {name: known[name] / 1e6 for name in ("ts", "duration") if name in known}
            if "server_name" in known:
                known["server_name"] = json_text(known["server_name"])
            self._stream.write((json.dumps(known, separators=(",", ":")) + "\n").encode())


def _text(column: str) -> pl.Expr:
    """Return a column of text, null where it is empty."""
    return pl.when(pl.col(column) != "").then(pl.col(column)).alias(column)


def _seconds(column: str) -> pl.Expr:
    """Return microseconds as seconds with six digits."""
    value = pl.col(column)
    fraction = (value % 1_000_000).cast(pl.String).str.zfill(6)
    return pl.concat_str((value // 1_000_000).cast(pl.String), pl.lit("."), fraction).alias(column)


def _identities(flows: pl.DataFrame, *columns: str) -> pl.Series:
    """Return an identifier of each row that depends on the values of `columns` only."""
    texts = flows.select(pl.concat_str(pl.col(columns).cast(pl.String), separator="|")).to_series()
    return pl.Series([_uid(text) for text in texts], dtype=pl.String)


def _uid(text: str) -> str:
    """Return an identifier in Zeek's form: C and a number of 96 bits to the base 62."""
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_UID_BYTES).digest())
    digits = []
    while number:
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "C" + "".join(digits)


def _tunnels(flows: pl.DataFrame) -> pl.Series:
    """Return an identifier of the pair of tunnel end points around each flow."""
    ends = flows.select(
        pl.lit("tunnel"),
        a=pl.min_horizontal("outer_src_ip", "outer_dst_ip"),
        b=pl.max_horizontal("outer_src_ip", "outer_dst_ip"),
    )
    uids = _identities(ends, *ends.columns)
    inside = flows["gtp_depth"] > 0
    return pl.select(pl.when(inside).then(pl.concat_list(uids))).to_series()


def _icmp_answer() -> pl.Expr:
    """Return the type that answers the first packet's; its code where none does."""
    answer = pl.lit(None, pl.UInt8)
    for protocol, types in _ICMP_ANSWERS.items():
        known = pl.col("icmp_type").replace_strict(types, default=None, return_dtype=pl.UInt8)
        answer = pl.when(pl.col("protocol") == protocol).then(known).otherwise(answer)
    return pl.coalesce(answer, pl.col("icmp_code"))


def _is_local(addresses: pl.Series) -> pl.Series:
    return pl.Series([_local(address) for address in addresses], dtype=pl.Boolean)


@lru_cache(maxsize=65_536)
def _local(address: str) -> bool:
    known = ipaddress.ip_address(address)
    return any(known.version == net.version and known in net for net in LOCAL_NETS)


def _escaped(texts: pl.Series) -> pl.Series:
    """Return texts without what a reader of the lines would take for structure."""
    return pl.Series([tab_text(text) for text in texts], dtype=pl.String)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d-%H-%M-%S")
