"""Features of one flow in plain Python, written from their documentation."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

from veilwatch.traffic.handshake import SERVICES

Row = dict[str, Any]
NAN = math.nan


def share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else NAN


def statistics(row: Row) -> dict[str, float]:
    """Every feature of the set `statistics`, shortcuts included."""
    out = {}
    packets = row["fwd_packets"] + row["bwd_packets"]
    octets = row["fwd_bytes"] + row["bwd_bytes"]
    payload_packets = row["fwd_payload_packets"] + row["bwd_payload_packets"]
    duration = (row["last_ns"] - row["first_ns"]) / 1e9
    out["is_tcp"] = row["protocol"] == 6
    out["is_udp"] = row["protocol"] == 17
    out["is_icmp"] = row["protocol"] in (1, 58)
    out["duration"] = duration
    out["packets"] = packets
    out["bytes"] = octets
    out["packet_rate"] = share(packets, duration)
    out["byte_rate"] = share(octets, duration)
    out["fwd_packet_share"] = share(row["fwd_packets"], packets)
    out["fwd_byte_share"] = share(row["fwd_bytes"], octets)
    out["fwd_payload_share"] = share(
        row["fwd_payload_bytes"], row["fwd_payload_bytes"] + row["bwd_payload_bytes"]
    )
    out["turns"] = row["turns"]
    out["turn_share"] = share(row["turns"], payload_packets)
    for name in ("pauses", "pause_mean", "pause_std"):
        out[name] = row[name]
    out["pause_regularity"] = share(row["pause_std"], row["pause_mean"])
    out["answered"] = row["bwd_packets"] > 0
    out["first_answer"] = row["bwd_start"]
    out["established"] = bool(row["tcp_state"] & 4)
    out["refused"] = row["bwd_rst"] > 0 and row["bwd_payload_packets"] == 0
    out["syn_retries"] = max(row["fwd_syn"] - 1, 0)
    for side in ("fwd", "bwd"):
        out |= {f"{side}_{name}": value for name, value in directed(row, side).items()}
    out |= handshake(row)
    out["src_port"] = row["src_port"]
    out["dst_port"] = row["dst_port"]
    out["ip_version"] = row["ip_version"]
    out["time_of_day"] = datetime.fromtimestamp(row["first_ns"] // 10**9, UTC).hour
    return out


def directed(row: Row, side: str) -> dict[str, float]:
    def of(name: str) -> Any:
        return row[f"{side}_{name}"]

    names = (
        *("packets", "bytes", "payload_packets", "payload_bytes", "size_std", "payload_max"),
        *("payload_std", "duration", "gap_min", "gap_max", "gap_mean", "gap_std"),
        *("zero_windows", "retransmissions", "out_of_order", "bursts", "burst_max_bytes"),
        *("fin", "rst", "psh", "prefix_entropy", "prefix_printable", "prefix_zero"),
    )
    out = {name: of(name) for name in names}
    there = of("packets") > 0
    for name in (
        *("size_min", "size_max", "ttl"),
        *("window_first", "window_mean", "window_min", "window_max"),
    ):
        out[name] = of(name) if there else NAN
    out["size_mean"] = share(of("bytes"), of("packets"))
    out["payload_mean"] = share(of("payload_bytes"), of("payload_packets"))
    out["payload_packet_share"] = share(of("payload_packets"), of("packets"))
    out["first_payload"] = of("first_payload") or NAN
    out["byte_rate"] = share(of("bytes"), of("duration"))
    out["gap_variation"] = share(of("gap_std"), of("gap_mean"))
    out["burst_bytes"] = share(of("payload_bytes"), of("bursts"))
    out["psh_share"] = share(of("psh"), of("payload_packets"))
    out["mss"] = of("mss") or NAN
    out["wscale"] = NAN if of("wscale") == 255 else of("wscale")
    return out


def has_leaf(row: Row) -> bool:
    """Whether anything of a certificate was read that each one has."""
    names = ("cert_not_before_s", "cert_not_after_s", "cert_self_signed")
    return any(row[name] is not None for name in names)


def as_tls(version: int) -> int:
    """A version of DTLS as that of the TLS it is made of."""
    return {0xFEFC: 0x304, 0xFEFD: 0x303, 0xFEFF: 0x302, 0x100: 0x302}.get(version, version)


def handshake(row: Row) -> dict[str, float]:
    out: dict[str, float] = {f"service_{name}": row["service"] == name for name in SERVICES if name}
    out["service_unknown"] = row["service"] == ""
    client = row["tls_client_hello_bytes"] > 0
    server = row["tls_server_hello_bytes"] > 0
    leaf = has_leaf(row)
    ciphers, extensions = row["tls_ciphers"], row["tls_extensions"]
    of_client = {
        "tls_client_version": as_tls(row["tls_client_version"]),
        "tls_record_version": as_tls(row["tls_record_version"]) or NAN,  # 0 in QUIC
        "tls_client_hello_bytes": row["tls_client_hello_bytes"],
        "tls_session_id_bytes": row["tls_session_id_bytes"],
        "tls_ciphers": len(ciphers),
        "tls_extensions": len(extensions),
        "tls_groups": len(row["tls_groups"]),
        "tls_point_formats": len(row["tls_point_formats"]),
        "tls_signature_algorithms": len(row["tls_signature_algorithms"]),
        "tls_alpn": len(row["tls_alpn"]),
        "tls_alpn_h2": "h2" in row["tls_alpn"],
        "tls_has_sni": row["tls_sni"] != "",
        "tls_grease": any(n >> 8 == n & 0xFF and n & 0xF == 0xA for n in ciphers),
        "tls_unanswered": not server,
    }
    # The names of these features say which number is looked for.
    numbers: dict[str, Any] = dict.fromkeys(OFFERS, ciphers) | dict.fromkeys(EXTENSIONS, extensions)
    of_client |= {name: int(name[-4:], 16) in found for name, found in numbers.items()}
    out |= {name: value if client else NAN for name, value in of_client.items()}
    of_server = {
        "tls_version": as_tls(row["tls_version"]),
        "tls_server_hello_bytes": row["tls_server_hello_bytes"],
        # Enough for the suites that the test's flows choose; the table has a test of its own.
        "tls_cipher_forward_secret": row["tls_cipher"] >> 8 in (0x13, 0xC0, 0xCC),
        "tls_server_extensions": len(row["tls_server_extensions"]),
        "tls_server_alpn": row["tls_server_alpn"] != "",
        "cert_count": row["cert_count"],
    }
    out |= {name: value if server else NAN for name, value in of_server.items()}
    out["cert_chain_bytes"] = row["cert_chain_bytes"] or NAN
    day = 86_400
    begin, end = (
        NAN if row[name] is None else row[name]
        for name in ("cert_not_before_s", "cert_not_after_s")
    )
    self_signed = row["cert_self_signed"]
    covers = row["cert_matches_sni"]
    of_leaf = {
        "cert_self_signed": NAN if self_signed is None else self_signed,
        "cert_validity_days": (end - begin) / day,
        "cert_age_days": (row["first_ns"] / 1e9 - begin) / day,
        "cert_names": row["cert_names"],
        "cert_subject_fields": row["cert_subject_fields"],
        "cert_key_bits": row["cert_key_bits"],
        "cert_key_rsa": row["cert_key"] == "rsa",
        "cert_matches_sni": NAN if covers is None else covers,
        "cert_subject_length": len(row["cert_subject"]),
    }
    out |= {name: value if leaf else NAN for name, value in of_leaf.items()}
    out |= text("sni", row["tls_sni"]) | text("dns", row["dns_query"])
    asked = row["dns_query"] != ""
    out["dns_query_type"] = row["dns_query_type"] if asked else NAN
    out["dns_response_code"] = row["dns_response_code"] if asked else NAN
    out["dns_answers"] = row["dns_answers"] if asked else NAN
    out["dns_min_ttl"] = row["dns_min_ttl"] if row["dns_answers"] else NAN
    return out


OFFERS = [
    f"tls_offers_{number:04x}"
    for number in (
        *(0x1301, 0x1303, 0xC02B, 0xC02F, 0xCCA9, 0xC009, 0xC013, 0xC023, 0x009E, 0x0033),
        *(0x009C, 0x002F, 0x000A, 0x0005, 0x0004, 0x0003, 0x0013, 0x00FF, 0x5600),
    )
]
EXTENSIONS = [
    f"tls_extension_{number:04x}"
    for number in (
        *(0, 5, 10, 11, 13, 16, 18, 21, 22, 23, 27, 35, 41, 43, 45, 51),
        *(0x3374, 0x7550, 0xFF01),
    )
]


def text(prefix: str, name: str) -> dict[str, float]:
    """How a name is built."""
    if not name:
        measures = dict.fromkeys(
            ("length", "labels", "longest_label", "digit_share", "vowel_share", "consonant_run"),
            NAN,
        )
    else:
        runs = re.split("[^bcdfghjklmnpqrstvwxz]", name.lower())
        longest = max(map(len, runs))
        measures = {
            "length": len(name),
            "labels": len(name.split(".")),
            "longest_label": max(map(len, name.split("."))),
            "digit_share": sum(c in "0123456789" for c in name) / len(name),
            "vowel_share": sum(c in "aeiou" for c in name.lower()) / len(name),
            "consonant_run": longest if longest >= 4 else 0,
        }
    return {f"{prefix}_{key}": value for key, value in measures.items()}


def sequence(row: Row, steps: int) -> dict[str, float]:
    """Every feature of the set `sequence`."""
    found: list[tuple[float, float]] = []
    since = 0.0
    for size, payload, gap in zip(
        row["seq_size"], row["seq_payload"], row["seq_gap_us"], strict=True
    ):
        since += gap / 1e6
        if payload > 0 and len(found) < steps:
            found.append((payload if size > 0 else -payload, since if found else 0.0))
            since = 0.0
    out = {f"step_size_{k}": found[k][0] if k < len(found) else NAN for k in range(steps)}
    out |= {f"step_gap_{k}": found[k][1] if k < len(found) else NAN for k in range(1, steps)}
    seen = [(s, g / 1e6) for s, g in zip(row["seq_size"], row["seq_gap_us"], strict=True) if s]
    out |= {f"packet_size_{k}": seen[k][0] if k < len(seen) else NAN for k in range(steps)}
    out |= {f"packet_gap_{k}": seen[k][1] if k < len(seen) else NAN for k in range(1, steps)}
    return out


def informative(row: Row, count: int) -> list[tuple[bool, int, int, int, float]]:
    """Of the first packets those with payload, SYN, FIN or RST.

    Each as forward, payload, length, flags and time in seconds.
    """
    out, time = [], 0.0
    names = ("seq_size", "seq_payload", "seq_gap_us", "seq_flags")
    for size, payload, gap, flags in zip(*(row[name][:count] for name in names), strict=True):
        time += gap / 1e6
        if size and (payload > 0 or flags & 0b111):
            out.append((size > 0, payload, abs(size), flags & 0b1111, time))
    return out


def packets(row: Row, count: int) -> dict[str, float]:
    """Every feature of the set `packets`, shortcuts included."""
    names = ("size", "gap", "flags", "length")
    out = {f"told_{name}_{k}": NAN for name in names for k in range(count)}
    before = None
    for k, (forward, payload, length, flags, time) in enumerate(informative(row, count)):
        sign = 1 if forward else -1
        out[f"told_size_{k}"] = sign * payload
        out[f"told_gap_{k}"] = 0.0 if before is None else time - before
        out[f"told_flags_{k}"] = flags + (0 if forward else 16)
        out[f"told_length_{k}"] = sign * length
        before = time
    return out


def flowpic(row: Row, count: int) -> dict[str, float]:
    """Every feature of the set `flowpic`, shortcuts included."""
    out = {f"{name}_{k}": NAN for name in ("cell", "length_cell") for k in range(count)}
    for k, (forward, payload, _, _, time) in enumerate(informative(row, count)):
        line = 0
        if payload:  # 31 rows whose lower edges are squares
            line = max(n for n in range(1, 32) if payload >= 1500 * ((n - 1) / 31) ** 2)
        out[f"cell_{k}"] = (0 if forward else 1024) + 32 * line + column(time)
    time = 0.0
    for k, (size, gap) in enumerate(zip(row["seq_size"], row["seq_gap_us"], strict=True)):
        time += gap / 1e6
        if size and k < count:
            line = min(abs(size) // (1500 / 32), 31)
            out[f"length_cell_{k}"] = (0 if size > 0 else 1024) + 32 * line + column(time)
    return out


def column(time: float) -> int:
    """Column of a picture: the first ends at 1 ms, 31 more of equal ratio end at 1800 s."""
    edges = [0.0] + [0.001 * 1_800_000 ** (k / 31) for k in range(31)]
    return max(k for k, edge in enumerate(edges) if time >= edge)
