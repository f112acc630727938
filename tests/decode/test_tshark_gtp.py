"""GTP-U of real captures against tshark: messages, TEIDs, extension headers, QFI, addresses, ports.

Every disagreement has a name and an exact count in `EXPECTED`; anything else fails.
"""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import CookedLinux, Ether

from veilwatch.capture import open_captures
from veilwatch.decode import Decoder
from veilwatch.schema.packets import NONE8, Status

G_PDU = 255
TEREDO_PORT = "3544"

AGREE = "agreement on every compared field"
AGREE_SIGNALLING = "agreement on a message between the tunnel's ends"
REASSEMBLED = "tshark shows a reassembled datagram at its last fragment, we at its first"
INCOMPLETE = "first fragment of a datagram that never became whole: tshark does not look inside"
NOT_IP = "a G-PDU that carries no IP packet stays ordinary UDP"
LONGER_INSIDE = "inner IP packet longer than its G-PDU: not plausible, stays ordinary UDP"
LONGER_MESSAGE = "G-PDU longer than its datagram: stays ordinary UDP"
QUOTED = "tshark also dissects a G-PDU that an ICMP error quotes"
OTHER_PORT = "control plane or charging on its own port, not GTP-U"
NOT_IP_INSIDE = "tshark shows a nested G-PDU that carries no IP packet"
ICMP_LAYERS = "agreement; tshark also shows the packet that an inner ICMP error quotes"
IN_TEREDO = "agreement down to the packet inside Teredo inside GTP-U"

INNER_FRAGMENT = "agreement; tshark shows the ports of an inner fragment at another frame"

EXPECTED = {
    AGREE: 17_846,
    AGREE_SIGNALLING: 11,
    ICMP_LAYERS: 46,
    IN_TEREDO: 10,
    INNER_FRAGMENT: 130,
    REASSEMBLED: 553,
    INCOMPLETE: 4,
    LONGER_MESSAGE: 1,
    NOT_IP: 6_001,  # 6,000 of them from a traffic generator that overwrote the inner version
    NOT_IP_INSIDE: 1,
    LONGER_INSIDE: 1,
    QUOTED: 6,
    OTHER_PORT: 56,
}


@dataclass(frozen=True)
class Seen:
    """What the decoder says of one packet, and the frame for what its fields do not hold."""

    fields: dict[str, int]
    frame: bytes
    link: int

    def address(self, name: str) -> str:
        """Return an address field as tshark writes it."""
        address = IPv6Address(self.fields[f"{name}_hi"] << 64 | self.fields[f"{name}_lo"])
        return str(address.ipv4_mapped or address)

    def outer_ip(self) -> IP:
        """Return Scapy's reading of the outer IPv4 header."""
        return {1: Ether, 113: CookedLinux}[self.link](self.frame).getlayer(IP)


Row = dict[str, str]


def values(row: Row, column: str) -> list[str]:
    return row[column].split(",") if row[column] else []


def read_truth(path: Path) -> dict[str, dict[int, Row]]:
    truth: dict[str, dict[int, Row]] = {}
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            truth.setdefault(row["capture"], {})[int(row["frame.number"])] = row
    return truth


def seen_packets(path: Path) -> Iterator[Seen]:
    decoder = Decoder()
    with open_captures([path]) as stream:
        for block in stream:
            packets = decoder.decode(block).packets
            columns = {name: packets[name].tolist() for name in packets.dtype.names or ()}
            for i, record in enumerate(block.records):
                start = int(record["offset"])
                frame = block.buffer[start : start + int(record["captured"])].tobytes()
                yield Seen({k: v[i] for k, v in columns.items()}, frame, int(record["link"]))


def disagreement(seen: Seen, row: Row) -> str:
    """Return in which compared field a G-PDU differs from tshark's row, '' in none."""
    ours = seen.fields
    truth_qfi = values(row, "gtp.ext_hdr.pdu_ses_con.qos_flow_id")
    same_family = (":" in seen.address("outer_src")) == (":" in seen.address("src"))
    inner = 1 if same_family else 0
    layer = "ipv6" if ours["ip_version"] == 6 else "ip"
    outer_layer = "ipv6" if ":" in seen.address("outer_src") else "ip"
    pairs: dict[str, tuple[object, object]] = {
        "teid": (ours["gtp_teid"], int(values(row, "gtp.teid")[0], 16)),
        "extensions": (ours["gtp_extension_count"], len(values(row, "gtp.ext_hdr"))),
        "qfi": (ours["gtp_qfi"], int(truth_qfi[0]) if truth_qfi else NONE8),
        "src": (seen.address("src"), values(row, f"{layer}.src")[inner]),
        "dst": (seen.address("dst"), values(row, f"{layer}.dst")[inner]),
        "outer src": (seen.address("outer_src"), values(row, f"{outer_layer}.src")[0]),
        "outer dst": (seen.address("outer_dst"), values(row, f"{outer_layer}.dst")[0]),
    }
    if ours["protocol"] in (6, 17) and not ours["fragment"]:
        layer, at = ("tcp", 0) if ours["protocol"] == 6 else ("udp", 1)
        pairs["src port"] = (ours["src_port"], int(values(row, f"{layer}.srcport")[at]))
        pairs["dst port"] = (ours["dst_port"], int(values(row, f"{layer}.dstport")[at]))
    return "; ".join(f"{k}: {a} is {b} in tshark" for k, (a, b) in pairs.items() if a != b)


def reason_for_silence(seen: Seen, row: Row) -> str:
    """Return why tshark sees GTP-U where the decoder does not, '' for no good reason."""
    ours = seen.fields
    if not {"2152"} & {*values(row, "udp.srcport"), *values(row, "udp.dstport")}:
        return OTHER_PORT
    if values(row, "ip.proto")[0] == "1":
        return QUOTED
    payload = seen.frame[-ours["payload_captured"] :]
    if 8 + int.from_bytes(payload[2:4]) > len(payload):
        return LONGER_MESSAGE
    header = 12 if payload[0] & 7 else 8
    while header > 8 and payload[header - 1]:
        header += 4 * payload[header]
    tunnelled = payload[header:]
    if tunnelled[0] >> 4 not in (4, 6):
        return NOT_IP
    return LONGER_INSIDE if int.from_bytes(tunnelled[2:4]) > len(tunnelled) else ""


def agreement(seen: Seen, row: Row) -> str:
    """Return the name for a G-PDU that agrees: tshark may have gone on where we stop."""
    if seen.fields["fragment"]:
        return INNER_FRAGMENT
    layers = len(values(row, "ip.src")) + len(values(row, "ipv6.src"))
    if layers == seen.fields["gtp_depth"] + 1:
        return AGREE if len(values(row, "gtp.message")) == 1 else NOT_IP_INSIDE
    if seen.fields["protocol"] == 1:
        return ICMP_LAYERS
    in_teredo = TEREDO_PORT in values(row, "udp.srcport") + values(row, "udp.dstport")
    return IN_TEREDO if in_teredo and layers == seen.fields["gtp_depth"] + 2 else ""


def compare(capture: str, path: Path, truth: dict[int, Row], reasons: Counter[str]) -> list[str]:
    """Compare one capture; count the named reasons and return what has none."""
    faults: list[str] = []
    first_fragments: dict[tuple[str, str, int], Seen] = {}

    def judge(reason: str, seen: Seen, detail: str = "") -> None:
        if reason and not detail:
            reasons[reason] += 1
        else:
            faults.append(f"{capture} frame {seen.fields['number']}: {detail or 'unexplained'}")

    for seen in seen_packets(path):
        ours = seen.fields
        row = truth.get(ours["number"])
        message = int(values(row, "gtp.message")[0], 16) if row and row["gtp.message"] else 0
        if ours["gtp_message"] == message == G_PDU and row:
            detail = disagreement(seen, row)
            judge(agreement(seen, row), seen, detail)
        elif ours["gtp_message"] == message and message and row:
            same = ours["gtp_teid"] == int(row["gtp.teid"], 16)
            judge(AGREE_SIGNALLING, seen, "" if same else "teid")
        elif ours["gtp_message"] == G_PDU and not message:
            header = seen.outer_ip()
            if not header.flags.MF or header.frag:
                judge("", seen, "G-PDU that tshark does not see")
            first_fragments[header.src, header.dst, header.id] = seen
        elif message and ours["status"] == Status.LATER_FRAGMENT and row:
            key = seen.address("src"), seen.address("dst"), ours["ip_id"]
            first = first_fragments.pop(key, None)
            judge(REASSEMBLED, seen, disagreement(first, row) if first else "no first fragment")
        elif message and not ours["gtp_message"] and row:
            judge(reason_for_silence(seen, row), seen)
        elif message or ours["gtp_message"]:
            judge("", seen, f"message {ours['gtp_message']} is {message} in tshark")
    reasons[INCOMPLETE] += len(first_fragments)
    return faults


@pytest.mark.corpus
def test_gtp_u_agrees_with_tshark(corpus_path: Path) -> None:
    # Arrange
    truth = read_truth(corpus_path / "ground_truth" / "tshark_gtp.tsv.gz")
    captures = sorted(p for p in (corpus_path / "gtp").iterdir() if p.name != "MANIFEST.csv")

    # Act
    reasons: Counter[str] = Counter()
    faults: list[str] = []
    for path in captures:
        name = f"gtp/{path.name}"
        faults += compare(name, path, truth.pop(name, {}), reasons)

    # Assert
    assert not truth, f"captures of the ground truth that were not read: {sorted(truth)}"
    assert not faults, "\n".join(faults[:20])
    assert dict(reasons) == EXPECTED
