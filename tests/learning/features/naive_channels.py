"""Features of channels in plain Python, written from their documentation."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from tests.learning.features.naive import as_tls, has_leaf, text
from tests.learning.features.naive_windows import largest, mean, share, variation
from veilwatch.learning.features.channel import CHEAP_DOMAINS
from veilwatch.learning.features.tls_numbers import EPHEMERAL, WEAK
from veilwatch.traffic.handshake import SERVICES

Row = dict[str, Any]
NAN = math.nan
NS = 10**9
REQUESTS = ("open", "close", "read", "write", "change", "list", "other", "encrypted")


def channels(
    rows: Iterable[Row], resolved: Sequence[str]
) -> dict[tuple[Any, ...], tuple[list[Row], dict[str, float]]]:
    """Flows and features of each channel, by place, host, service and hour.

    The name that each flow's destination was resolved from has tests of its own.
    """
    named = [row | {"resolved_name": name} for row, name in zip(rows, resolved, strict=True)]
    named.sort(key=lambda row: (row["first_ns"], row["flow_id"]))
    began: dict[tuple[Any, ...], int] = {}
    found = defaultdict(list)
    for row in named:
        host = row.get("place", 0), row["src_ip"], row["subscriber"]
        hour = (row["first_ns"] - began.setdefault(host, row["first_ns"])) // (3600 * NS)
        found[*host, row["dst_ip"], row["dst_port"], row["protocol"], hour].append(row)
    resolves = {row.get("place", 0) for row in named if row["resolved_name"]}
    return {key: (flows, describe(flows, key[0] in resolves)) for key, flows in found.items()}


def describe(flows: list[Row], place_resolves: bool) -> dict[str, float]:
    return {
        **calls(flows),
        **volume(flows),
        **services(flows),
        **tls(flows),
        **names(flows, place_resolves),
        **files(flows),
        **name_shape(flows),
    }


def seconds(row: Row) -> float:
    return float((row["last_ns"] - row["first_ns"]) / NS)


def of_repeats(flows: list[Row], values: Sequence[float]) -> float:
    return variation(values) if len(flows) >= 4 else NAN


def calls(flows: list[Row]) -> dict[str, float]:
    opens = [row["first_ns"] for row in flows if row["flow_id"] == row["parent_id"]]
    gaps = [(later - earlier) / NS for earlier, later in pairwise(opens)]
    middle = statistics.median(gaps) if gaps else NAN
    lasting = [seconds(row) for row in flows]
    tcp = [row for row in flows if row["protocol"] == 6]
    both = Counter((row["fwd_payload_bytes"], row["bwd_payload_bytes"]) for row in flows)
    return {
        "calls": len(flows),
        "active_span": (max(r["last_ns"] for r in flows) - min(r["first_ns"] for r in flows)) / NS,
        "seconds_mean": mean(lasting),
        "seconds_max": max(lasting),
        "seconds_variation": of_repeats(flows, lasting),
        "call_gap_median": middle,
        "call_gap_min": min(gaps, default=NAN),
        "call_gap_max": largest(gaps),
        "call_gap_variation": variation(gaps) if len(gaps) >= 3 else NAN,
        "call_gap_near": mean(abs(gap - middle) <= 0.1 * middle for gap in gaps)
        if len(gaps) >= 3
        else NAN,
        "equal_exchanges": max(both.values()) / len(flows),
        "distinct_uploads": len({row["fwd_payload_bytes"] for row in flows}) / len(flows),
        "answered_share": mean(row["bwd_packets"] > 0 for row in flows),
        "reset_share": mean(row["fwd_rst"] > 0 or row["bwd_rst"] > 0 for row in tcp),
        "syn_retries_mean": mean(max(row["fwd_syn"] - 1, 0) for row in tcp),
    }


def volume(flows: list[Row]) -> dict[str, float]:
    out = {"packets_mean": mean(row["fwd_packets"] + row["bwd_packets"] for row in flows)}
    for side in ("fwd", "bwd"):
        payload = [row[f"{side}_payload_bytes"] for row in flows]
        out |= {
            f"{side}_payload_mean": mean(payload),
            f"{side}_payload_max": max(payload),
            f"{side}_payload_variation": of_repeats(flows, payload),
            f"{side}_packet_bytes": share(
                sum(row[f"{side}_bytes"] for row in flows),
                sum(row[f"{side}_packets"] for row in flows),
            ),
        }
    up, down = (sum(row[f"{s}_payload_bytes"] for row in flows) for s in ("fwd", "bwd"))
    return out | {
        "bytes_up": sum(row["fwd_bytes"] for row in flows),
        "bytes_down": sum(row["bwd_bytes"] for row in flows),
        "payload_up_share": share(up, up + down),
        "payload_rate": share(up + down, sum(map(seconds, flows))),
        "silent_share": mean(
            row["fwd_payload_bytes"] + row["bwd_payload_bytes"] == 0 for row in flows
        ),
        "prefix_entropy": mean(
            row["fwd_prefix_entropy"] for row in flows if math.isfinite(row["fwd_prefix_entropy"])
        ),
    }


def services(flows: list[Row]) -> dict[str, float]:
    seen = {row["service"] for row in flows}
    return {f"is_{name}": name in seen for name in SERVICES if name} | {
        "is_udp": flows[0]["protocol"] == 17
    }


def first(flows: list[Row], value: Callable[[Row], Any]) -> float:
    """Value of the first flow; one that is not known does not apply."""
    found = value(flows[0]) if flows else None
    return NAN if found is None else float(found)


def extensions(row: Row) -> int | None:
    digits = row["ja4"][6:8]
    return int(digits) if digits.isascii() and digits.isdigit() else None


def validity(row: Row) -> float | None:
    before, after = row["cert_not_before_s"], row["cert_not_after_s"]
    return None if before is None or after is None else (after - before) / 86_400


def age(row: Row) -> float | None:
    before = row["cert_not_before_s"]
    return None if before is None else (row["first_ns"] / NS - before) / 86_400


def tls(flows: list[Row]) -> dict[str, float]:
    hellos = [row for row in flows if row["tls_client_hello_bytes"]]
    servers = [row for row in flows if row["tls_server_hello_bytes"]]
    shown = [row for row in flows if has_leaf(row)]
    return {
        "hello_bytes": first(hellos, lambda row: row["tls_client_hello_bytes"]),
        "hello_ciphers": first(hellos, lambda row: len(row["tls_ciphers"])),
        "hello_weak_ciphers": first(hellos, lambda row: sum(c in WEAK for c in row["tls_ciphers"])),
        "hello_extensions": first(hellos, extensions),
        "hello_h2": first(hellos, lambda row: "h2" in row["tls_alpn"]),
        "hello_alpn": first(hellos, lambda row: len(row["tls_alpn"])),
        "hello_named": first(hellos, lambda row: row["tls_sni"] != ""),
        "hello_kinds": len({row["ja4"] for row in hellos}),
        "tls_version": first(servers, lambda row: as_tls(row["tls_version"])),
        "tls_forward_secret": first(servers, lambda row: row["tls_cipher"] in EPHEMERAL),
        "tls_unanswered": mean(not row["tls_server_hello_bytes"] for row in hellos),
        "cert_self_signed": first(shown, lambda row: row["cert_self_signed"]),
        "cert_matches_name": first(shown, lambda row: row["cert_matches_sni"]),
        "cert_validity_days": first(shown, validity),
        "cert_age_days": first(shown, age),
    }


def names(flows: list[Row], place_resolves: bool) -> dict[str, float]:
    asked = [row for row in flows if row["dns_query"]]
    return {
        "resolved_share": mean(row["resolved_name"] != "" for row in flows)
        if place_resolves
        else NAN,
        "asked_names": len({row["dns_query"] for row in asked}),
        "nxdomain_share": mean(row["dns_response_code"] == 3 for row in asked),
        "text_question_share": mean(row["dns_query_type"] in (10, 16) for row in asked),
        "asked_length_mean": mean(len(row["dns_query"]) for row in asked),
    }


def files(flows: list[Row]) -> dict[str, float]:
    kinds = (*REQUESTS, "error")
    if not any(row[f"file_{kind}"] for row in flows for kind in REQUESTS):
        return {f"file_{kind}_rate": NAN for kind in kinds}
    lasting = sum(map(seconds, flows))
    return {
        f"file_{kind}_rate": share(sum(row[f"file_{kind}"] for row in flows), lasting)
        for kind in kinds
    }


def name_of(flows: list[Row]) -> str:
    """What the service is called: by itself, in questions, or where its address came from."""
    told = [row["tls_sni"] or row["dns_query"] or row["resolved_name"] for row in flows]
    return next((str(name) for name in told if name), "")


def name_shape(flows: list[Row]) -> dict[str, float]:
    name = name_of(flows)
    last = name.lower().rpartition(".")[2]
    cheap = float(last in CHEAP_DOMAINS) if last else NAN
    return text("name", name) | {"name_cheap_domain": cheap if name else NAN}


def flow_class(row: Row) -> int:
    """Number of a flow's class."""
    hello = row["tls_client_hello_bytes"] or row["tls_server_hello_bytes"] or row["quic_version"]
    if hello or row["service"] in ("tls", "dtls", "quic"):
        return 0
    if row["service"] in ("dns", "mdns", "llmnr", "netbios") or row["dns_query"]:
        return 1
    if row["service"] in ("smb", "nfs", "rdp", "dcerpc", "ldap", "kerberos"):
        return 2
    return 3 if row["bwd_packets"] else 4
