"""The feature set `channel`: what a host says to one service within an hour.

No feature compares a channel with the rest of its host, as shares of a host do: the same beacon
gives the same values on a host that does nothing else and on one that a person uses too.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from veilwatch.learning.features.base import Feature, FeatureSet, feature, ratio
from veilwatch.learning.features.channels import CHANNEL, channel_flows
from veilwatch.learning.features.handshake import name_features
from veilwatch.learning.features.tls_columns import (
    CERT_AGE_DAYS,
    CERT_VALIDITY_DAYS,
    HAS_LEAF,
    tls_number,
)
from veilwatch.learning.features.tls_numbers import EPHEMERAL, WEAK
from veilwatch.learning.features.window_activity import ANSWERED, HAS_PAYLOAD, IS_TCP, REQUESTS
from veilwatch.learning.features.window_names import (
    ASKS,
    HAS_HELLO,
    IS_ANSWERED,
    NXDOMAIN,
    TUNNEL_TYPES,
)
from veilwatch.learning.features.window_pairs import NEAR, REPEATS
from veilwatch.learning.features.windows import HOST, PLACE
from veilwatch.schema.flows import FILE_MESSAGES
from veilwatch.traffic.handshake import SERVICES

CHEAP_DOMAINS: Final = (
    *("tk", "ml", "ga", "cf", "gq", "top", "xyz", "pw", "bid", "stream", "club", "icu", "work"),
    *("click", "link", "loan", "win", "men", "download", "racing", "date", "party", "review"),
    *("trade", "science", "gdn", "buzz", "rest", "fit", "monster", "cyou", "sbs", "bond", "quest"),
    *("su", "ws", "cc", "site", "online", "website", "space", "host", "press", "info", "biz"),
)
"""Top-level domains that reports on abuse name year after year (Spamhaus, "The 10 most abused
top-level domains"; Interisle, "Phishing landscape"): free or the price of a cent at first."""

_SECONDS: Final = (pl.col("last_ns") - pl.col("first_ns")) / 1e9
_PACKETS: Final = pl.col("fwd_packets").cast(pl.Float64) + pl.col("bwd_packets")
_PAYLOAD: Final = pl.col("fwd_payload_bytes").cast(pl.Float64) + pl.col("bwd_payload_bytes")
_GAP: Final = pl.col("call_gap")


def _variation(value: pl.Expr) -> pl.Expr:
    """Return deviation over mean, null for fewer than `REPEATS` flows."""
    return pl.when(pl.len() >= REPEATS).then(ratio(value.std(ddof=0), value.mean()))


_CALLS: Final = (
    feature("calls", pl.len(), "", "Flows"),
    feature(
        "active_span",
        (pl.col("last_ns").max() - pl.col("first_ns").min()) / 1e9,
        "s",
        "First packet of the first to last packet of the last flow",
    ),
    feature("seconds_mean", _SECONDS.mean(), "s", "Mean duration of flows"),
    feature("seconds_max", _SECONDS.max(), "s", "Longest duration of a flow"),
    feature("seconds_variation", _variation(_SECONDS), "", "Deviation of durations over the mean"),
    feature("call_gap_median", _GAP.median(), "s", "Median gap between starts of flows"),
    feature("call_gap_min", _GAP.min(), "s", "Shortest gap between starts of flows"),
    feature("call_gap_max", _GAP.max(), "s", "Longest gap between starts of flows"),
    feature(
        "call_gap_variation",
        pl.when(_GAP.count() >= REPEATS - 1).then(ratio(_GAP.std(ddof=0), _GAP.mean())),
        "",
        "Deviation of gaps over their mean: low for a beacon",
    ),
    feature(
        "call_gap_near",
        pl.when(_GAP.count() >= REPEATS - 1).then(
            ((_GAP - _GAP.median()).abs() <= NEAR * _GAP.median()).mean()
        ),
        "",
        "Share of gaps within a tenth of their median",
    ),
    feature(
        "equal_exchanges",
        pl.struct("fwd_payload_bytes", "bwd_payload_bytes").unique_counts().max() / pl.len(),
        "",
        "Largest share of flows with the same payload both ways",
    ),
    feature(
        "distinct_uploads",
        pl.col("fwd_payload_bytes").n_unique() / pl.len(),
        "",
        "Distinct payload lengths sent, per flow",
    ),
    feature("answered_share", ANSWERED.mean(), "", "Share of flows that were answered"),
    feature(
        "reset_share",
        ((pl.col("fwd_rst") > 0) | (pl.col("bwd_rst") > 0)).filter(IS_TCP).mean(),
        "",
        "Share of TCP flows that either side reset",
    ),
    feature(
        "syn_retries_mean",
        (pl.col("fwd_syn").cast(pl.Int64) - 1).clip(0).filter(IS_TCP).mean(),
        "",
        "Mean repeated SYNs of TCP flows",
    ),
)

_VOLUME: Final = (
    feature("packets_mean", _PACKETS.mean(), "packets", "Mean packets of flows both ways"),
    *[
        item
        for side, words in (("fwd", "sent by the host"), ("bwd", "sent to the host"))
        for item in (
            feature(
                f"{side}_payload_mean",
                pl.col(f"{side}_payload_bytes").mean(),
                "bytes",
                f"Mean payload of flows {words}",
            ),
            feature(
                f"{side}_payload_max",
                pl.col(f"{side}_payload_bytes").max(),
                "bytes",
                f"Largest payload of a flow {words}",
            ),
            feature(
                f"{side}_payload_variation",
                _variation(pl.col(f"{side}_payload_bytes").cast(pl.Float64)),
                "",
                f"Deviation of payload {words} over the mean",
            ),
            feature(
                f"{side}_packet_bytes",
                ratio(pl.col(f"{side}_bytes").sum(), pl.col(f"{side}_packets").sum()),
                "bytes",
                f"Mean IP bytes of packets {words}",
            ),
        )
    ],
    feature("bytes_up", pl.col("up").sum(), "bytes", "IP bytes sent by the host"),
    feature("bytes_down", pl.col("down").sum(), "bytes", "IP bytes sent to the host"),
    feature(
        "payload_up_share",
        ratio(pl.col("fwd_payload_bytes").sum(), _PAYLOAD.sum()),
        "",
        "Share of payload sent by the host",
    ),
    feature(
        "payload_rate",
        ratio(_PAYLOAD.sum(), _SECONDS.sum()),
        "bytes/s",
        "Payload both ways per second of the flows",
    ),
    feature("silent_share", (~HAS_PAYLOAD).mean(), "", "Share of flows without payload"),
    feature(
        "prefix_entropy",
        pl.col("fwd_prefix_entropy").filter(pl.col("fwd_prefix_entropy").is_finite()).mean(),
        "bit",
        "Mean entropy of the first bytes the host sent",
    ),
)

_SERVICE: Final = (
    *[
        feature(f"is_{name}", (pl.col("service") == name).any(), "", f"A flow looks like {name}")
        for name in SERVICES
        if name
    ],
    feature("is_udp", (pl.col("protocol") == 17).any(), "", "The flows are UDP"),
)


def _of_hello(value: pl.Expr) -> pl.Expr:
    """Return the value in the first flow with a ClientHello, null without any."""
    return value.filter(HAS_HELLO).first()


def _of_server(value: pl.Expr) -> pl.Expr:
    return value.filter(IS_ANSWERED).first()


def _of_leaf(value: pl.Expr) -> pl.Expr:
    return value.filter(HAS_LEAF).first()


_TLS: Final = (
    feature("hello_bytes", _of_hello(pl.col("tls_client_hello_bytes")), "bytes", "ClientHello"),
    feature("hello_ciphers", _of_hello(pl.col("tls_ciphers").list.len()), "", "Suites offered"),
    feature(
        "hello_weak_ciphers",
        _of_hello(pl.col("tls_ciphers").list.eval(pl.element().is_in(WEAK)).list.sum()),
        "",
        "Weak suites offered",
    ),
    feature(
        "hello_extensions",
        _of_hello(pl.col("ja4").str.slice(6, 2).cast(pl.Int32, strict=False)),
        "",
        "Extensions of the ClientHello, as JA4 counts them",
    ),
    feature("hello_h2", _of_hello(pl.col("tls_alpn").list.contains("h2")), "", "HTTP/2 is offered"),
    feature("hello_alpn", _of_hello(pl.col("tls_alpn").list.len()), "", "Protocols offered"),
    feature("hello_named", _of_hello(pl.col("tls_sni") != ""), "", "A server name is asked for"),
    feature("hello_kinds", pl.col("ja4").filter(HAS_HELLO).n_unique(), "", "Distinct JA4"),
    feature("tls_version", _of_server(tls_number("tls_version")), "", "TLS version chosen"),
    feature(
        "tls_forward_secret",
        _of_server(pl.col("tls_cipher").is_in(EPHEMERAL)),
        "",
        "The cipher chosen is DHE, ECDHE or of TLS 1.3",
    ),
    feature(
        "tls_unanswered",
        (~IS_ANSWERED).filter(HAS_HELLO).mean(),
        "",
        "Share of hellos unanswered",
    ),
    feature("cert_self_signed", _of_leaf(pl.col("cert_self_signed")), "", "Self-signed"),
    feature("cert_matches_name", _of_leaf(pl.col("cert_matches_sni")), "", "Covers the name"),
    feature(
        "cert_validity_days",
        _of_leaf(CERT_VALIDITY_DAYS),
        "d",
        "Length of the certificate's validity",
    ),
    feature(
        "cert_age_days",
        _of_leaf(CERT_AGE_DAYS),
        "d",
        "Age of the certificate at the time of the flow",
    ),
)

_NAMES: Final = (
    # Where the place shows no lookup at all, nothing can be missed.
    feature(
        "resolved_share",
        pl.when(pl.col("place_resolves").any()).then((pl.col("resolved_name") != "").mean()),
        "",
        "Share of flows whose destination was resolved from a name before",
    ),
    feature("asked_names", pl.col("dns_query").filter(ASKS).n_unique(), "", "Names asked for"),
    feature(
        "nxdomain_share",
        (pl.col("dns_response_code") == NXDOMAIN).filter(ASKS).mean(),
        "",
        "Share of questions for names that do not exist",
    ),
    feature(
        "text_question_share",
        pl.col("dns_query_type").is_in(TUNNEL_TYPES).filter(ASKS).mean(),
        "",
        "Share of questions of the types NULL and TXT",
    ),
    feature(
        "asked_length_mean",
        pl.col("dns_query").str.len_chars().filter(ASKS).mean(),
        "",
        "Mean characters of names asked for",
    ),
)

_FILES: Final = tuple(
    feature(
        f"file_{kind}_rate",
        pl.when(pl.sum_horizontal(REQUESTS).sum() > 0).then(
            ratio(pl.col(f"file_{kind}").sum(), _SECONDS.sum())
        ),
        "1/s",
        f"SMB and NFS messages per second of the flows: {kind}",
    )
    for kind in FILE_MESSAGES
)

# The name of the service, made before the features over it are taken.
_NAME: Final = (
    pl.when(pl.col("tls_sni") != "")
    .then("tls_sni")
    .when(pl.col("dns_query") != "")
    .then("dns_query")
    .otherwise("resolved_name")
)
_NAME_SHAPE: Final = (
    *name_features("name", "name", "the name that was asked for"),
    feature(
        "name_cheap_domain",
        pl.when(pl.col("name") != "").then(
            pl.col("name").str.to_lowercase().str.extract(r"([^.]+)$").is_in(CHEAP_DOMAINS)
        ),
        "",
        "The name is below a top-level domain that is given away or sold for cents",
    ),
)

_OF_FLOWS: Final = (*_CALLS, *_VOLUME, *_SERVICE, *_TLS, *_NAMES, *_FILES)


def channels(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the channels of all hosts of a flow table, in order of host and time.

    Parameters
    ----------
    frame
        All flows of the inputs, in any order.

    Returns
    -------
    polars.DataFrame
        `CHANNEL_KEYS` and every feature of `CHANNEL_SET`, null where one does not apply.
    """
    flows = channel_flows(frame)
    made = (
        flows.lazy()
        .group_by(CHANNEL, maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in (*HOST, PLACE, "dst_ip", "dst_port", "protocol")),
            *(item.expression for item in _OF_FLOWS),
            pl.col("flow_id").first(),
            name=_NAME.filter(_NAME != "").first().fill_null(""),
            first_ns=pl.col("first_ns").min(),
            last_ns=pl.col("last_ns").max(),
            flow_count=pl.len(),
            flow_class=pl.col("flow_class").min(),
        )
        .with_columns(item.expression for item in _NAME_SHAPE)
    )
    return made.drop("name", "pair", "host").collect()


CHANNEL_SET: Final = FeatureSet(
    "channel",
    1,
    "What a host says to one service within an hour: rhythm, sizes, handshake, names, file shares",
    # Aggregations over the flows of a channel are made in `channels`.
    tuple(Feature(item.spec, pl.col(item.spec.name)) for item in (*_OF_FLOWS, *_NAME_SHAPE)),
    unit="channel",
)
