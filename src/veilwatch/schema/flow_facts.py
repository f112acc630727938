"""One flow as a typed record: what is read of it outside the columns of its table.

Names of fields are names of columns, and nowhere else is there a list of them: a table is cut down
to the fields of the record (`FLOW_FACTS`), and its rows become records (`flow_facts`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, NamedTuple

import polars as pl

from veilwatch.schema.packets import NONE8

HOST_COLUMNS: Final = ("src_ip", "subscriber")
"""What tells one host from another: its address as initiator, and whose it is."""

MAX_ITEMS: Final = 32
"""Items kept of a list: ALPN lists of real clients are shorter."""

MAX_TEXT: Final = 1024
"""Characters kept of a text: a DNS name has at most 255 bytes, each of at most four characters."""


@dataclass(frozen=True, slots=True)
class FlowFacts:
    """What alerts, events, sinks and reports need of a scored flow.

    Fields are columns of the flow table (`veilwatch.schema.flows.FLOW_COLUMNS`), with their meaning
    and their sign for "none", and the detector's `score`. What an older record has not takes its
    default.
    """

    flow_id: int
    first_ns: int = 0
    last_ns: int = 0
    src_ip: str = ""
    src_port: int = 0
    dst_ip: str = ""
    dst_port: int = 0
    protocol: int = 0
    ip_version: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    end_reason: int = NONE8
    service: str = ""
    gtp_depth: int = 0
    outer_src_ip: str = ""
    outer_dst_ip: str = ""
    fwd_teid: int = 0
    bwd_teid: int = 0
    fwd_qfi: int = NONE8
    bwd_qfi: int = NONE8
    subscriber: str = ""
    fwd_packets: int = 0
    bwd_packets: int = 0
    fwd_bytes: int = 0
    bwd_bytes: int = 0
    fwd_payload_bytes: int = 0
    bwd_payload_bytes: int = 0
    tls_sni: str = ""
    tls_version: int = 0
    tls_alpn: tuple[str, ...] = ()
    tls_server_alpn: str = ""
    ja3: str = ""
    ja3s: str = ""
    ja4: str = ""
    cert_subject: str = ""
    cert_issuer: str = ""
    quic_version: int = 0
    dns_query: str = ""
    score: float = 0.0

    @property
    def qfi(self) -> int | None:
        """The flow's QoS flow identifier in either direction, None without any."""
        return next((q for q in (self.fwd_qfi, self.bwd_qfi) if q != NONE8), None)

    @property
    def asked_name(self) -> str:
        """The name that was asked for, by TLS or by DNS; '' none."""
        return self.tls_sni or self.dns_query


FLOW_FACTS: Final = tuple(field.name for field in fields(FlowFacts))
"""The columns that a record is made of."""

SCORED_COLUMNS: Final = (*FLOW_FACTS, "source", "alert")
"""The columns that are kept of a scored table, some 250 bytes a flow: its facts, and what means
something within one run only, which input the flow was in and whether it is alerted by itself."""


class TunnelFacts(NamedTuple):
    """What tells whose a flow is, of every flow and before it is scored: columns of its table."""

    gtp_depth: int
    src_ip: str
    dst_ip: str
    outer_src_ip: str
    outer_dst_ip: str
    fwd_teid: int
    bwd_teid: int
    gtp_direction: str
    first_ns: int
    last_ns: int


def flow_facts(frame: pl.DataFrame) -> list[FlowFacts]:
    """Return the rows of a scored flow table as records, texts and lists bounded.

    Parameters
    ----------
    frame
        Has the columns `FLOW_FACTS`, and others that are left aside.
    """
    bounded = frame.lazy().select(FLOW_FACTS)
    bounded = bounded.with_columns(
        pl.col(pl.String).str.head(MAX_TEXT),
        pl.col("score").fill_nan(0.0),  # JSON has no NaN
        pl.col("tls_alpn").list.head(MAX_ITEMS).list.eval(pl.element().str.head(MAX_TEXT)),
    )
    return [_made(row) for row in bounded.collect().iter_rows()]


def _made(row: Iterable[Any]) -> FlowFacts:
    values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in row]
    return FlowFacts(*values)


def flow_facts_by_id(frame: pl.DataFrame, flow_ids: Collection[int]) -> dict[int, FlowFacts]:
    """Return some flows of a table by their `flow_id`; of several rows of a flow the last."""
    wanted = pl.Series(list(flow_ids), dtype=pl.Int64).unique()
    rows = frame.lazy().select(FLOW_FACTS).filter(pl.col("flow_id").is_in(wanted.implode()))
    return {facts.flow_id: facts for facts in flow_facts(rows.collect())}


def facts_to_plain(facts: FlowFacts) -> dict[str, Any]:
    """Return a record as plain values for JSON."""
    return asdict(facts)


def facts_from_plain(plain: Mapping[str, Any]) -> FlowFacts:
    """Return the record that `facts_to_plain` was given; what is missing or null is none."""
    known = {name: plain[name] for name in FLOW_FACTS if plain.get(name) is not None}
    return FlowFacts(**known | {"tls_alpn": tuple(known.get("tls_alpn", ()))})
