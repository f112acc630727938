"""One capture in both readings: what agrees, field by field, and why the rest does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.differential.bundles import Origins
from tests.differential.readings import LATER, Fields, Reading, readings
from tests.differential.tshark import Frame, frames
from veilwatch.schema.packets import NONE8, Status
from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.decode.network import MAX_EXTENSION_HEADERS
from veilwatch.traffic.decode.transport import MAX_WINDOW_SCALE

ABSENT: Final = {"tcp_wscale": NONE8, "gtp_qfi": NONE8, "gtp_pdu_type": NONE8}
"""What a field holds that a packet does not carry, where it is not 0."""

FIELDS: Final = (
    *("src", "dst", "ip_version", "protocol", "ip_length", "ttl", "ip_id", "dscp"),
    *("fragment", "fragment_offset", "vlan", "src_port", "dst_port", "checksum", "payload_length"),
    *("tcp_seq", "tcp_ack", "tcp_flags", "tcp_window", "tcp_mss", "tcp_wscale"),
    *("icmp_type", "icmp_code", "outer_src", "outer_dst", "gtp_depth", "gtp_message", "gtp_teid"),
    *("gtp_qfi", "gtp_pdu_type", "gtp_extension_count", "gtp_extensions"),
)
TRUNCATED: Final = {
    *(Status.TRUNCATED_LINK, Status.TRUNCATED_NETWORK),
    *(Status.TRUNCATED_TRANSPORT, Status.TRUNCATED_TUNNEL),
}
BAD: Final = {Status.BAD_NETWORK, Status.BAD_TRANSPORT, Status.BAD_TUNNEL}
GTP_U_PORT: Final = 2152
VXLAN_GPE_PORT: Final = 4790
GENEVE_PORT: Final = 6081

UNTAUGHT: Final = ("cmd", "nhrp", "gtpprime", "lisp", "sflow", "ieee8021ah")
"""Layers that lead tshark to an IP packet and us nowhere: a word of each for `ONLY_TSHARK`."""

ONLY_TSHARK = "only tshark looks into"
LINK = "only tshark reads link type"
ONLY_OURS = "tshark does not read link type"
UNREAD = "a frame of a link type or with a tag that tshark does not read, cut"
FABRICPATH = "tshark takes the end of the frame in FabricPath for its check sequence"
ARISTA = "a version of Arista's time stamps that tshark does not know"
PSEUDOWIRE = "a pseudowire of L2TPv3 that tshark shows by a preference only"
CUT_OPTIONS = "tshark shows an IP header whose options are cut"
OTHER_VERSION = "tshark follows an IP version that contradicts what led to it"
LOOPBACK_ETHERTYPE = "a loopback frame that has an EtherType in the place of its address family"
GRE_VERSION = "GRE of a version that is not defined stays GRE"
GRE_OTHER = "GRE of another EtherType stays GRE"
FROM_PORT = "VXLAN or GENEVE that comes from its port instead of going to it stays UDP"
GPE_FLAG = "VXLAN-GPE without the flag of its protocol field is Ethernet"
NOT_PLAUSIBLE = "a G-PDU whose inner packet does not fit into it stays UDP"
BIG_TCP = "tshark does not look into a datagram of length 0, which offload leaves on its host"
SOURCE_ROUTE = "tshark takes the destination from the route option"
IPV4_EXTENSION = "tshark follows an extension header of IPv6 behind IPv4"
CHAIN = "more extension headers than we follow"
IPV6_LENGTH_0 = "an IPv6 length of 0 (jumbogram, offload): the frame's length stands in"
WSCALE = "a window scale above 14 counts as 14"
GTP_C = "GTP on another port than GTP-U's"
CONTRADICTION = "a GTP-U message whose length contradicts its datagram stays UDP"
MALFORMED = "tshark stops at an IP option that contradicts itself"


@dataclass
class Outcome:
    """What a comparison found.

    Attributes
    ----------
    packets
        Packets that were compared.
    agreed
        How often each field agrees, and each status.
    reasons
        How many packets differ for each reason.
    unexplained
        What has no reason.
    counted
        The decoder's balance.
    """

    packets: int = 0
    agreed: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def add(self, other: Outcome) -> None:
        """Take over what another comparison found."""
        self.packets += other.packets
        self.agreed += other.agreed
        self.reasons += other.reasons
        self.unexplained += other.unexplained
        self.counted += other.counted


def decoded(capture: Path, counted: Counter[str]) -> Iterator[Fields]:
    """Decode a capture; addresses become one number each."""
    decoder = Decoder()
    with open_captures([capture]) as stream:
        for block in stream:
            packets = decoder.decode(block).packets
            columns = {name: packets[name].tolist() for name in packets.dtype.names or ()}
            for name in ("src", "dst", "outer_src", "outer_dst"):
                halves = zip(columns[f"{name}_hi"], columns[f"{name}_lo"], strict=True)
                columns[name] = [high << 64 | low for high, low in halves]
            for row in zip(*columns.values(), strict=True):
                yield dict(zip(columns, row, strict=True))
    counted.update(decoder.balance)


def compare(capture: Path, origins: Origins) -> Outcome:
    """Compare both readings of a file that `bundles.join` wrote."""
    outcome = Outcome()
    both = zip(decoded(capture, outcome.counted), frames(capture), origins, strict=True)
    for ours, frame, (name, number, link) in both:
        outcome.packets += 1
        reasons = []
        for what, reason in differences(ours, frame, link, outcome.agreed):
            if reason:
                reasons.append(reason)
            else:
                text = f"{name} frame {number}: {what}; {frame.path} {frame.expert}"
                outcome.unexplained.append(text[:300])
        outcome.reasons.update({*reasons})
    return outcome


def differences(
    ours: Fields, frame: Frame, link: int, agreed: Counter[str]
) -> Iterator[tuple[str, str]]:
    """Yield what differs in a packet and why, '' for no reason known; count what does not."""
    status = Status(ours["status"])
    chain = readings(frame)
    real = [reading for reading in chain if not reading.quoted]
    if not real or not ours["ip_version"]:
        if not real and not ours["ip_version"]:
            yield from judge_status(ours, None, frame, agreed)
        elif real:
            yield f"{status.name} has IP in tshark", unseen(status, frame, link)
        else:
            yield f"{status.name} has no IP in tshark", unseen_by_tshark(frame, link)
        return
    inner = real[-1]
    if not is_same_header(ours, inner):
        earlier = [reading for reading in real[:-1] if is_same_header(ours, reading)]
        where = earlier[-1] if earlier else None
        yield f"{status.name} with other addresses", not_followed(ours, where, inner, frame)
        return
    yield from judge_status(ours, inner, frame, agreed)
    if status not in (Status.OK, Status.LATER_FRAGMENT):
        agreed["addresses of a refused packet"] += 1
        return
    for name in FIELDS:
        mine, theirs = ours[name], inner.fields.get(name, ABSENT.get(name, 0))
        if mine == theirs or (name in inner.unsure and mine in (inner.unsure[name] or {mine})):
            agreed[name] += 1
        else:
            what = f"{name} {mine} is {theirs}"
            yield what, why_field(name, ours, inner, frame)


def is_same_header(ours: Fields, reading: Reading) -> bool:
    """Whether a reading is of the header that we took for the innermost."""
    return all(ours[name] == reading.fields[name] for name in ("src", "dst", "ip_version", "dscp"))


def judge_status(
    ours: Fields, inner: Reading | None, frame: Frame, agreed: Counter[str]
) -> Iterator[tuple[str, str]]:
    """Compare why a packet was refused, or that it was not."""
    status = Status(ours["status"])
    cut = frame.short or frame.malformed
    wrong = cut or bool(frame.expert)
    later = inner is not None and inner.fields["fragment"] == LATER
    if status is Status.OK:
        fine = inner is not None and not later
    elif status is Status.LATER_FRAGMENT:
        fine = later
    elif status in TRUNCATED:
        fine = cut or "exceeds" in frame.expert  # a length beyond what is there
    elif status in BAD:
        fine = wrong
    elif status in (Status.NOT_IP, Status.EMPTY, Status.UNSUPPORTED_LINK):
        fine = inner is None
    else:  # TUNNEL_PAYLOAD, TOO_DEEP: there is no IP packet further in
        fine = True
    if fine:
        agreed[status.name] += 1
        return
    yield f"{status.name}", why_status(status, inner, frame)


def why_status(status: Status, inner: Reading | None, frame: Frame) -> str:
    """Return why a status is not what tshark's reading suggests."""
    if status is Status.BAD_NETWORK and len(frame.layers) > MAX_EXTENSION_HEADERS:
        return CHAIN
    if status in TRUNCATED and frame.path in ("data", "eth:ethertype:data"):
        return UNREAD
    return ""


def unseen(status: Status, frame: Frame, link: int) -> str:
    """Return why we found no IP header at all where tshark has one."""
    layers = {layer.name for layer in frame.layers}
    if status is Status.TRUNCATED_NETWORK and frame.malformed:
        return CUT_OPTIONS
    if status is Status.BAD_NETWORK and "Bogus IPv4 version" in frame.expert:
        return OTHER_VERSION
    for name in UNTAUGHT:
        if name in layers and link in (1, 101, 113):
            return f"{ONLY_TSHARK} {name}"
    if link == 0 and "null" in layers:
        return LOOPBACK_ETHERTYPE
    return f"{LINK} {link}" if link not in (1, 101, 113) else ""


def unseen_by_tshark(frame: Frame, link: int) -> str:
    """Return why tshark has no IP header where we found one."""
    layers = {layer.name for layer in frame.layers}
    if "avsp" in layers:
        return ARISTA
    if "cfp" in layers and frame.malformed:
        return FABRICPATH
    return f"{ONLY_OURS} {link}" if frame.path == "data" else ""


def not_followed(ours: Fields, where: Reading | None, inner: Reading, frame: Frame) -> str:
    """Return why tshark's innermost header is not ours; `where` is ours in its chain."""
    if where is None:
        if "l2tp" in inner.after:
            return PSEUDOWIRE
        if frame.malformed:
            return BIG_TCP
        if VXLAN_GPE_PORT in (ours["src_port"], ours["dst_port"]) or "ip" in inner.after:
            return GPE_FLAG
        return SOURCE_ROUTE if ours["src"] == inner.fields["src"] else ""
    for name in UNTAUGHT:
        if name in where.after:
            return f"{ONLY_TSHARK} {name}"
    if where.after[:2] == ["udp", "gtp"]:
        return NOT_PLAUSIBLE
    if where.after == ["gre"]:
        return GRE_OTHER
    if ours["src_port"] in (VXLAN_GPE_PORT, GENEVE_PORT):
        return FROM_PORT
    return GPE_FLAG if where.after == ["udp"] else ""


def why_field(name: str, ours: Fields, inner: Reading, frame: Frame) -> str:
    """Return why a field differs, '' for no good reason."""
    if frame.path.startswith("eth:cfp:") and (frame.malformed or frame.short):
        return FABRICPATH
    if name == "tcp_wscale" and ours[name] == MAX_WINDOW_SCALE < inner.fields[name]:
        return WSCALE
    if name in ("gtp_message", "gtp_teid") and not ours["gtp_message"]:
        ports = ours["src_port"], ours["dst_port"]
        return CONTRADICTION if GTP_U_PORT in ports else GTP_C
    if inner.fields["ip_version"] == 6 and inner.fields["ip_length"] == 40:
        return IPV6_LENGTH_0
    if ours["ip_version"] == 4 and ours["protocol"] == 0:
        return IPV4_EXTENSION
    if ours["protocol"] == 47 and "gre" in [layer.name for layer in frame.layers]:
        return GRE_VERSION
    if frame.malformed and not inner.after:
        return MALFORMED
    return ""
