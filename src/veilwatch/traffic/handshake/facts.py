"""From heads to the handshake columns of the flow table."""

from __future__ import annotations

from typing import Any, Final

import polars as pl
import pyarrow as pa

from veilwatch.schema.flows import DTLS_OVER, HANDSHAKE_COLUMNS, Column, HeadBatch
from veilwatch.traffic.handshake.certificate import read_certificate
from veilwatch.traffic.handshake.dns import DNS_PORTS, DnsMessage, read_dns
from veilwatch.traffic.handshake.dtls import client_hello, read_flight
from veilwatch.traffic.handshake.ja3 import ja3, ja3s
from veilwatch.traffic.handshake.ja4 import DTLS, QUIC, TCP, ja4
from veilwatch.traffic.handshake.proxy import without_proxy_headers
from veilwatch.traffic.handshake.quic_hello import read_quic
from veilwatch.traffic.handshake.text import MAX_ALPN_NAME, escape, escape_protocols
from veilwatch.traffic.handshake.tls import (
    CERTIFICATE,
    CLIENT_HELLO,
    HANDSHAKE,
    SERVER_HELLO,
    SERVER_HELLO_DONE,
    Message,
    handshake_messages,
    read_chain,
    read_client_hello,
    read_server_hello,
)

MAX_NUMBERS: Final = 512
"""Items kept of a list of numbers of a hello: IANA has assigned fewer than 400 cipher suites, and
far fewer of anything else. Fingerprints are made of all of them."""

_TCP: Final = 6
_UDP: Final = 17
_DTLS_OPENING: Final = bytes((HANDSHAKE,))

_NULLABLE: Final = {
    *("cert_self_signed", "cert_not_before_s", "cert_not_after_s", "cert_matches_sni"),
    *("quic_retry", "quic_initial_opened"),
}
_NUMBERS: Final = {"dns_response_code": -1}

FACT_COLUMNS: Final = [column for column in HANDSHAKE_COLUMNS if column.name != "service"]
"""The columns that `read_heads` fills, in order."""


def _empty(name: str, dtype: Any) -> Any:
    if name in _NULLABLE:
        return None
    if dtype == pl.String:
        return ""
    return [] if dtype.base_type() == pl.List else _NUMBERS.get(name, 0)


_ARROW_LISTS: Final[dict[Any, Any]] = {
    pl.List(pl.UInt8): pa.list_(pa.uint8()),
    pl.List(pl.UInt16): pa.list_(pa.uint16()),
    pl.List(pl.UInt32): pa.list_(pa.uint32()),
    pl.List(pl.String): pa.list_(pa.string()),
}

EMPTY: Final[dict[str, Any]] = {c.name: _empty(c.name, c.dtype) for c in FACT_COLUMNS}
"""Value of each column where a flow said nothing of the kind (None stands for null)."""

Facts = dict[str, Any]


def read_heads(heads: HeadBatch) -> pl.DataFrame:
    """Read what flows said before they went dark.

    Parameters
    ----------
    heads
        First stream bytes of flows. Which side is the client is told by the bytes, so that a
        flow whose direction was guessed wrong still gives its facts.

    Returns
    -------
    polars.DataFrame
        One row per row of `heads`: `flow_id` and the columns of `FACT_COLUMNS`. What a cut or
        malformed handshake does not tell for certain has its `EMPTY` value.
    """
    rows = heads.rows
    columns: dict[str, list[Any]] = {name: [empty] * len(rows) for name, empty in EMPTY.items()}
    for row in range(len(rows)):
        for name, value in facts_of(heads, row).items():
            columns[name][row] = value
    series = [pl.Series("flow_id", rows["flow_id"], dtype=pl.Int64)]
    series += [_series(column, columns[column.name]) for column in FACT_COLUMNS]
    return pl.DataFrame(series)


def facts_of(heads: HeadBatch, row: int) -> Facts:
    """Return what one flow said, by name of the column; the rest is `EMPTY`."""
    flow = heads.rows[row]
    if flow["protocol"] == _TCP:
        return _tls_facts(*(without_proxy_headers(heads.stream(row, side)) for side in (0, 1)))
    if flow["protocol"] not in DTLS_OVER:
        return {}
    sides = heads.datagrams(row, 0), heads.datagrams(row, 1)
    if flow["protocol"] != _UDP:
        return _dtls_facts(*sides)
    if int(flow["src_port"]) in DNS_PORTS or int(flow["dst_port"]) in DNS_PORTS:
        return _dns_facts(*sides)
    if any(side and side[0][:1] == _DTLS_OPENING for side in sides):
        return _dtls_facts(*sides)
    return _quic_facts(*sides)


def fill_facts(frame: pl.DataFrame) -> pl.DataFrame:
    """Replace null by the `EMPTY` value in the columns that `read_heads` makes.

    For a flow table whose flows were joined with the facts of those that have a head.
    """
    return frame.with_columns(
        pl.col(column.name).fill_null(pl.lit(EMPTY[column.name], dtype=column.dtype))
        for column in FACT_COLUMNS
        if EMPTY[column.name] is not None
    )


def name_dtls(frame: pl.DataFrame) -> pl.DataFrame:
    """Set the service of flows that read as DTLS, whatever came before it.

    WebRTC begins with STUN on the same ports, by which the first bytes name the flow.

    Parameters
    ----------
    frame
        A flow table with its facts.
    """
    hello = (pl.col("tls_client_hello_bytes") > 0) | (pl.col("tls_version") > 0)
    dtls = pl.col("protocol").is_in(DTLS_OVER) & pl.col("quic_retry").is_null() & hello
    service = pl.when(dtls).then(pl.lit("dtls")).otherwise(pl.col("service"))
    return frame.with_columns(service.alias("service"))


def _series(column: Column, values: list[Any]) -> pl.Series:
    arrow = _ARROW_LISTS.get(column.dtype)
    if arrow is None:
        return pl.Series(column.name, values, dtype=column.dtype)
    # Arrow builds a column of lists ten times faster than Polars does from Python lists.
    return pl.Series(column.name, pa.array(values, arrow), dtype=column.dtype)


def _tls_facts(*streams: bytes) -> Facts:
    facts: Facts = {}
    flights = [list(handshake_messages(stream)) for stream in streams]
    for stream, flight in zip(streams, flights, strict=True):
        if flight and flight[0].kind == CLIENT_HELLO:
            record_version = int.from_bytes(stream[1:3], "big")
            facts = _client_facts(flight[0], TCP) | {"tls_record_version": record_version}
            break
    for flight in flights:
        if flight and flight[0].kind == SERVER_HELLO:
            facts |= _server_facts(flight, facts.get("tls_sni", ""))
            break
    return facts


def _quic_facts(first: list[bytes], second: list[bytes]) -> Facts:
    quic = read_quic(first, second)
    if quic is None:
        return {}
    facts: Facts = {
        "quic_version": quic.version,
        "quic_server_version": quic.server_version,
        "quic_dcid": quic.dcid.hex(),
        "quic_scid": quic.scid.hex(),
        "quic_retry": quic.retry,
        "quic_versions": quic.versions,
        "quic_token_bytes": min(quic.token_bytes, 0xFFFF),
        "quic_initial_opened": quic.opened,
    }
    if quic.client:
        facts |= _client_facts(quic.client[0], QUIC)
    return facts | _server_facts(quic.server, facts.get("tls_sni", ""))


def _dtls_facts(*sides: list[bytes]) -> Facts:
    facts: Facts = {}
    flights = [read_flight(side) for side in sides]
    for flight in flights:
        hello = client_hello(flight)
        if hello is not None:
            facts = _client_facts(hello, DTLS) | {"tls_record_version": flight.version}
            break
    for flight in flights:
        if any(message.kind == SERVER_HELLO for message in flight.messages):
            facts |= _server_facts(flight.messages, facts.get("tls_sni", ""))
            break
    return facts


def _client_facts(message: Message, transport: str) -> Facts:
    hello = read_client_hello(message, cookie=transport == DTLS)
    return {
        "tls_client_version": hello.version,
        "tls_client_hello_bytes": min(hello.length, 0xFFFF),
        "tls_session_id_bytes": hello.session_id_bytes,
        "tls_sni": escape(hello.server_name),
        "tls_alpn": escape_protocols(hello.alpn),
        "tls_ciphers": hello.ciphers[:MAX_NUMBERS],
        "tls_extensions": hello.extensions[:MAX_NUMBERS],
        "tls_groups": hello.groups[:MAX_NUMBERS],
        "tls_point_formats": hello.point_formats[:MAX_NUMBERS],
        "tls_signature_algorithms": hello.signature_algorithms[:MAX_NUMBERS],
        "tls_supported_versions": hello.supported_versions[:MAX_NUMBERS],
        "ja3": ja3(hello),
        "ja4": ja4(hello, transport),
    }


def _server_facts(flight: list[Message], server_name: str) -> Facts:
    """Return the facts of a server's flight.

    A HelloRetryRequest already fixes version and cipher suite (RFC 8446, section 4.1.4); the
    rest comes from the ServerHello that follows it.
    """
    facts: Facts = {}
    for message in flight:
        if message.kind == SERVER_HELLO:
            hello = read_server_hello(message)
            if hello is None:
                break
            facts["tls_version"] = hello.version
            facts["tls_cipher"] = hello.cipher
            if not hello.retry:
                facts["tls_server_hello_bytes"] = min(hello.length, 0xFFFF)
                facts["tls_server_extensions"] = hello.extensions[:MAX_NUMBERS]
                facts["tls_server_alpn"] = escape(hello.alpn, MAX_ALPN_NAME)
                facts["ja3s"] = ja3s(hello)
        elif message.kind == CERTIFICATE:
            facts |= _certificate_facts(message, server_name)
            break
        elif message.kind == SERVER_HELLO_DONE:
            break
    return facts


def _certificate_facts(message: Message, server_name: str) -> Facts:
    chain = read_chain(message)
    if chain is None or not chain.certificates:
        return {}
    facts: Facts = {"cert_chain_bytes": chain.length}
    if chain.whole:
        facts["cert_count"] = min(len(chain.certificates), 0xFF)
    leaf = read_certificate(chain.certificates[0])
    if leaf is not None:
        facts |= {
            "cert_subject": leaf.subject,
            "cert_issuer": leaf.issuer,
            "cert_self_signed": leaf.self_signed,
            "cert_not_before_s": leaf.not_before_s,
            "cert_not_after_s": leaf.not_after_s,
            "cert_names": leaf.alternative_names,
            "cert_subject_fields": leaf.subject_fields,
            "cert_key": leaf.key,
            "cert_key_bits": leaf.key_bits,
            "cert_matches_sni": leaf.covers(server_name),
        }
    return facts


def _dns_facts(*sides: list[bytes]) -> Facts:
    datagrams = [datagram for side in sides for datagram in side[:1]]
    messages = [message for datagram in datagrams if (message := read_dns(datagram)) is not None]
    question = next((message for message in messages if not message.response), None)
    answer = next((message for message in messages if message.response), None)
    if answer is not None and question is not None and answer.identifier != question.identifier:
        answer = None  # to a question whose datagram is not in this head
    facts: Facts = {}
    asked: DnsMessage | None = question or answer
    if asked is not None:
        facts |= {"dns_query": asked.name, "dns_query_type": asked.kind}
    if answer is not None:
        facts |= {
            "dns_response_code": answer.code,
            "dns_answers": answer.answers,
            "dns_min_ttl": answer.min_ttl,
            "dns_addresses": answer.addresses,
        }
    return facts
