"""Features of host windows in plain Python, written from their documentation."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

from tests.learning.features.naive import as_tls, has_leaf
from veilwatch.learning.features.tls_numbers import EPHEMERAL, WEAK

Row = dict[str, Any]
NAN = math.nan
NS = 10**9
SERVICES = ("tls", "quic", "dns", "http", "ssh", "netbios")
LATERAL = ("smb", "rdp", "dcerpc", "ldap", "kerberos")
REQUESTS = ("open", "close", "read", "write", "change", "list", "other", "encrypted")


def share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else NAN


def mean(values: Iterable[float]) -> float:
    found = [float(value) for value in values]
    return statistics.fmean(found) if found else NAN


def largest(values: Iterable[float]) -> float:
    return max(values, default=NAN)


def variation(values: Sequence[float]) -> float:
    return share(statistics.pstdev(values), statistics.fmean(values)) if values else NAN


def entropy(values: Iterable[Any]) -> float:
    counts = Counter(values).values()
    total = sum(counts)
    return -sum(n / total * math.log2(n / total) for n in counts)


def most(values: Iterable[Any]) -> int:
    return max(Counter(values).values())


def windows(rows: Iterable[Row]) -> dict[tuple[Any, ...], dict[str, float]]:
    """Every feature of every window by place, address, subscriber and number of the window."""
    hosts = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["first_ns"], row["flow_id"])):
        hosts[row.get("place", 0), row["src_ip"], row["subscriber"]].append(row)
    out = {}
    for host, flows in hosts.items():
        by_window = defaultdict(list)
        for row in flows:
            by_window[(row["first_ns"] - flows[0]["first_ns"]) // (300 * NS)].append(row)
        for number in by_window:
            out[*host, number] = describe(by_window, number, flows[0]["first_ns"])
    return out


def describe(by_window: dict[int, list[Row]], number: int, began: int) -> dict[str, float]:
    """Features of one window of a host whose first flow began at `began`."""
    flows = by_window[number]
    before = [row for n, rows in by_window.items() if n < number for row in rows]
    hour = {n: rows for n, rows in by_window.items() if number - 12 < n <= number}
    return {
        **volume(flows),
        **pace(flows, began),
        **failures(flows),
        **fan_out(flows, before, number),
        **services(flows),
        **files(flows),
        **tls(flows),
        **dns(flows),
        **names("dns", [row["dns_query"] for row in flows]),
        **names("tls", [row["tls_sni"] for row in flows]),
        **beacons(flows),
        **in_the_hour(hour, by_window),
        "time_of_day": datetime.fromtimestamp(flows[0]["first_ns"] // NS, UTC).hour,
        "well_known_port_share": mean(
            row["dst_port"] < 1024 for row in flows if row["protocol"] in (6, 17)
        ),
        "ip6_share": mean(row["ip_version"] == 6 for row in flows),
    }


def volume(flows: list[Row]) -> dict[str, float]:
    up, down = [r["fwd_bytes"] for r in flows], [r["bwd_bytes"] for r in flows]
    both = [r["fwd_bytes"] + r["bwd_bytes"] for r in flows]
    payload_up = sum(r["fwd_payload_bytes"] for r in flows)
    payload_down = sum(r["bwd_payload_bytes"] for r in flows)
    seconds = [(r["last_ns"] - r["first_ns"]) / NS for r in flows]
    return {
        "flows": len(flows),
        "tcp_share": mean(r["protocol"] == 6 for r in flows),
        "udp_share": mean(r["protocol"] == 17 for r in flows),
        "icmp_share": mean(r["protocol"] in (1, 58) for r in flows),
        "packets": sum(r["fwd_packets"] + r["bwd_packets"] for r in flows),
        "bytes_up": sum(up),
        "bytes_down": sum(down),
        "up_share": share(sum(up), sum(both)),
        "payload_up_share": share(payload_up, payload_up + payload_down),
        "largest_upload_share": share(max(up), sum(up)),
        "flow_bytes_mean": mean(both),
        "flow_bytes_variation": variation(both),
        "flow_seconds_mean": mean(seconds),
        "flow_seconds_max": max(seconds),
    }


def has_payload(row: Row) -> bool:
    return bool(row["fwd_payload_bytes"] + row["bwd_payload_bytes"] > 0)


def exchange(row: Row) -> tuple[int, int]:
    return row["fwd_payload_bytes"], row["bwd_payload_bytes"]


def pace(flows: list[Row], began: int) -> dict[str, float]:
    starts = [row["first_ns"] for row in flows]
    gaps = [(later - earlier) / NS for earlier, later in pairwise(starts)]
    talking = [row for row in flows if has_payload(row)]
    return {
        "active_span": (starts[-1] - starts[0]) / NS,
        "start_gap_mean": mean(gaps),
        "start_gap_max": largest(gaps),
        "start_gap_variation": variation(gaps),
        "busiest_share": most((start - began) // (10 * NS) for start in starts) / len(flows),
        "equal_exchanges_share": 1 - share(len(set(map(exchange, talking))), len(talking)),
        "equal_uploads_share": 1
        - share(len({row["fwd_payload_bytes"] for row in talking}), len(talking)),
    }


def failures(flows: list[Row]) -> dict[str, float]:
    tcp = [row for row in flows if row["protocol"] == 6]
    return {
        "unanswered_share": mean(row["bwd_packets"] == 0 for row in flows),
        "tcp_unanswered_share": mean(row["bwd_packets"] == 0 for row in tcp),
        "refused_share": mean(
            row["bwd_rst"] > 0 and row["bwd_payload_packets"] == 0 for row in tcp
        ),
        "aborted_share": mean(row["fwd_rst"] > 0 for row in tcp),
        "established_share": mean(bool(row["tcp_state"] & 4) for row in tcp),
        "retries_mean": mean(max(row["fwd_syn"] - 1, 0) for row in tcp),
        "one_packet_share": mean(row["fwd_packets"] + row["bwd_packets"] == 1 for row in flows),
        "silent_share": mean(not has_payload(row) for row in flows),
    }


def network(address: str) -> str:
    if ":" in address:
        return ":".join(address.split(":")[:3])
    assert ip_address(address).version == 4
    return address.rpartition(".")[0]


def fan_out(flows: list[Row], before: list[Row], number: int) -> dict[str, float]:
    places = {row["dst_ip"] for row in flows}
    networks = {network(place) for place in places}
    known = {row["dst_ip"] for row in before}
    answering = {row["dst_ip"] for row in flows if row["bwd_packets"]}
    by_place, by_port, by_network = defaultdict(set), defaultdict(set), defaultdict(set)
    dead_by_port: Counter[tuple[int, int]] = Counter()
    for row in flows:
        by_place[row["dst_ip"]].add(row["dst_port"])
        by_port[row["protocol"], row["dst_port"]].add(row["dst_ip"])
        by_network[network(row["dst_ip"])].add(row["dst_ip"])
        dead_by_port[row["protocol"], row["dst_port"]] += row["bwd_packets"] == 0
    return {
        "destinations": len(places),
        "destinations_per_flow": len(places) / len(flows),
        "destination_entropy": entropy(row["dst_ip"] for row in flows),
        "top_destination_share": most(row["dst_ip"] for row in flows) / len(flows),
        "networks": len(networks),
        "networks_per_destination": len(networks) / len(places),
        "ports": len({row["dst_port"] for row in flows}),
        "ports_per_flow": len({row["dst_port"] for row in flows}) / len(flows),
        "top_port_share": most(row["dst_port"] for row in flows) / len(flows),
        "new_destinations": len(places - known) if number else NAN,
        "new_destination_share": mean(row["dst_ip"] not in known for row in flows)
        if number
        else NAN,
        "dead_destinations": len(places - answering),
        "dead_destination_share": len(places - answering) / len(places),
        "port_sweep": max(map(len, by_place.values())),
        "host_sweep": max(map(len, by_port.values())),
        "host_sweep_dead": max(dead_by_port.values()),
        "network_sweep": max(map(len, by_network.values())),
    }


def services(flows: list[Row]) -> dict[str, float]:
    lateral = [row for row in flows if row["service"] in LATERAL]
    unknown = [row for row in flows if row["service"] == ""]
    return {
        **{
            f"{name}_share": mean(row["service"] == name for row in flows)
            for name in (*SERVICES, *LATERAL)
        },
        "unknown_share": mean(row["service"] == "" and has_payload(row) for row in flows),
        "unknown_entropy": mean(
            row["fwd_prefix_entropy"] for row in unknown if math.isfinite(row["fwd_prefix_entropy"])
        ),
        "services": len({row["service"] for row in flows}),
        "lateral_destinations": len({row["dst_ip"] for row in lateral}),
        "lateral_services": len({row["service"] for row in lateral}),
    }


def files(flows: list[Row]) -> dict[str, float]:
    sharing = [row for row in flows if any(row[f"file_{kind}"] for kind in REQUESTS)]
    count = {kind: sum(row[f"file_{kind}"] for row in flows) for kind in (*REQUESTS, "error")}
    seconds = sum((row["last_ns"] - row["first_ns"]) / NS for row in sharing)
    up = sum(row["fwd_payload_bytes"] for row in sharing)
    both = up + sum(row["bwd_payload_bytes"] for row in sharing)
    reads, writes = count["read"], count["write"]
    return {
        **{f"file_{kind}": count[kind] if sharing else NAN for kind in count},
        "file_servers": len({row["dst_ip"] for row in sharing}) if sharing else NAN,
        "file_write_share": share(writes, reads + writes),
        "file_rewriting": share(min(reads, writes), max(reads, writes)),
        "file_changes_per_open": share(count["change"], count["open"]),
        "file_messages_rate": share(sum(count[kind] for kind in REQUESTS), seconds),
        "file_up_share": share(up, both),
    }


def tls(flows: list[Row]) -> dict[str, float]:
    hellos = [row for row in flows if row["tls_client_hello_bytes"]]
    answered = [row for row in flows if row["tls_server_hello_bytes"]]
    shown = [row for row in flows if has_leaf(row)]
    days = [
        (row["cert_not_after_s"] - row["cert_not_before_s"]) / 86_400
        for row in shown
        if row["cert_not_after_s"] is not None and row["cert_not_before_s"] is not None
    ]
    return {
        "tls_hellos": len(hellos),
        "tls_unnamed_share": mean(row["tls_sni"] == "" for row in hellos),
        "tls_clients": len({row["ja4"] for row in hellos}),
        "tls_clients_ja3": len({row["ja3"] for row in hellos}),
        "tls_servers": len({row["ja3s"] for row in answered}),
        "tls_unanswered_share": mean(not row["tls_server_hello_bytes"] for row in hellos),
        "tls_old_share": mean(as_tls(row["tls_version"]) < 0x0303 for row in answered),
        "tls_no_forward_secrecy_share": mean(
            row["tls_cipher"] not in EPHEMERAL for row in answered
        ),
        "tls_weak_offer_share": mean(bool(set(row["tls_ciphers"]) & set(WEAK)) for row in hellos),
        "tls_alpn_share": mean(bool(row["tls_alpn"]) for row in hellos),
        "tls_hello_bytes_mean": mean(row["tls_client_hello_bytes"] for row in hellos),
        "tls_self_signed_share": mean(
            row["cert_self_signed"] for row in shown if row["cert_self_signed"] is not None
        ),
        "tls_mismatch_share": mean(
            not row["cert_matches_sni"] for row in shown if row["cert_matches_sni"] is not None
        ),
        "tls_validity_days_mean": mean(days),
    }


def dns(flows: list[Row]) -> dict[str, float]:
    asked = [row for row in flows if row["dns_query"]]
    return {
        "dns_queries": len(asked),
        "dns_nxdomain_share": mean(row["dns_response_code"] == 3 for row in asked),
        "dns_unanswered_share": mean(row["dns_response_code"] < 0 for row in asked),
        "dns_free_text_share": mean(row["dns_query_type"] in (10, 16) for row in asked),
        "dns_answers_mean": mean(
            row["dns_answers"] for row in asked if row["dns_response_code"] == 0
        ),
        "dns_min_ttl_mean": mean(row["dns_min_ttl"] for row in flows if row["dns_answers"]),
    }


def names(prefix: str, found: Iterable[str]) -> dict[str, float]:
    distinct = {name.lower().rstrip(".") for name in found} - {""}
    labels = [max(name.split("."), key=len) for name in sorted(distinct)]
    domains = [".".join(name.split(".")[-2:]) for name in distinct]
    digits = [sum(c in "0123456789" for c in label) / len(label) for label in labels]
    vowels = [sum(c in "aeiou" for c in label) / len(label) for label in labels]
    random = [
        len(label) >= 8
        and (bool(re.search("[bcdfghjklmnpqrstvwxz]{5}", label)) or some < 0.2 or many > 0.25)
        for label, some, many in zip(labels, vowels, digits, strict=True)
    ]
    values = {
        "names": len(distinct) or NAN,
        "domains": len(set(domains)) or NAN,
        "names_in_domain": most(domains) if domains else NAN,
        "length_mean": mean(map(len, distinct)),
        "length_max": largest(map(len, distinct)),
        "entropy_mean": mean(map(entropy, labels)),
        "entropy_max": largest(map(entropy, labels)),
        "digit_share": mean(digits),
        "vowel_share": mean(vowels),
        "random_share": mean(random),
    }
    return {f"{prefix}_{name}": value for name, value in values.items()}


def service(row: Row) -> tuple[Any, ...]:
    return row["dst_ip"], row["dst_port"], row["protocol"]


def by_service(flows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    out = defaultdict(list)
    for row in flows:
        out[service(row)].append(row)
    return out


def calls(flows: Iterable[Row]) -> list[int]:
    return [row["first_ns"] for row in flows if row["flow_id"] == row["parent_id"]]


def differences(times: Sequence[int]) -> list[int]:
    return [later - earlier for earlier, later in pairwise(times)]


def steadiest(pairs: list[tuple[float, int, Row]], name: str) -> float:
    """A value of the pair with the smallest variation, then most gaps, then smallest value."""
    return min(((v, -n, row[name]) for v, n, row in pairs), default=(0, 0, NAN))[2]


def beacons(flows: list[Row]) -> dict[str, float]:
    pairs = by_service(flows)
    steady: list[tuple[float, int, Row]] = []
    for rows in pairs.values():
        gaps = [gap / NS for gap in differences(calls(rows))]
        if len(gaps) < 3 or statistics.median(gaps) < 1:
            continue
        middle = statistics.median(gaps)
        values = {
            "variation": variation(gaps),
            "period": middle,
            "gaps": len(gaps),
            "jitter": (max(gaps) - min(gaps)) / middle,
            "near": mean(abs(gap - middle) <= 0.1 * middle for gap in gaps),
            "equal": most(map(exchange, rows)) / len(rows),
            "calls": len(rows),
        }
        steady.append((values["variation"], len(gaps), values))
    even = [row for v, _, row in steady if v < 0.25]
    regular = sum(row["calls"] for row in even)
    repeated = [rows for rows in pairs.values() if len(rows) >= 4]
    return {
        "pairs": len(pairs),
        "pair_calls_max": max(map(len, pairs.values())),
        "repeated_pairs": len(repeated),
        "pair_equal_share": largest(most(map(exchange, rows)) / len(rows) for rows in repeated),
        "beacon_variation": steadiest(steady, "variation"),
        "beacon_period": steadiest(steady, "period"),
        "beacon_gaps": steadiest(steady, "gaps"),
        "beacon_jitter": steadiest(steady, "jitter"),
        "beacon_equal_share": steadiest(steady, "equal"),
        "beacon_strength": largest(row["near"] for _, _, row in steady),
        "beacon_pairs": len(even),
        "beacon_flow_share": regular / len(flows),
    }


def in_the_hour(hour: dict[int, list[Row]], by_window: dict[int, list[Row]]) -> dict[str, float]:
    flows = [row for rows in hour.values() for row in rows]
    pairs = by_service(flows)
    ever = by_service(row for n in sorted(by_window) for row in by_window[n])
    steady: list[tuple[float, int, Row]] = []
    for key, rows in pairs.items():
        inside = calls(rows)
        earlier = [t for t in calls(ever[key]) if inside and t < inside[0]]
        # A gap belongs to the call that ends it, even where the hour began in between.
        gaps = [g // 100_000 for g in differences([*earlier[-1:], *inside]) if g <= 3600 * NS]
        if len(gaps) < 3 or mean(gaps) / 10_000 < 1:
            continue
        values = {
            "variation": variation(gaps),
            "period": mean(gaps) / 10_000,
            "gaps": len(gaps),
            "calls": len(rows),
        }
        steady.append((values["variation"], len(gaps), values))
    up, down = sum(r["fwd_bytes"] for r in flows), sum(r["bwd_bytes"] for r in flows)
    return {
        "hour_flows": len(flows),
        "hour_pairs": len(pairs),
        "hour_unanswered_share": mean(row["bwd_packets"] == 0 for row in flows),
        "hour_up_share": share(up, up + down),
        "hour_top_share": max(map(len, pairs.values())) / len(flows),
        "hour_beacon_variation": steadiest(steady, "variation"),
        "hour_beacon_period": steadiest(steady, "period"),
        "hour_beacon_gaps": steadiest(steady, "gaps"),
        "hour_beacon_flow_share": sum(r["calls"] for v, _, r in steady if v < 0.25) / len(flows),
    }
