"""Every F-TEID, UE address, name and identity that tshark shows is found, message by message."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.subscriber.attribute import address_number
from veilwatch.traffic.subscriber.control import MessageReader, control_rows, datagram
from veilwatch.traffic.subscriber.elements import Element, walk_pfcp
from veilwatch.traffic.subscriber.identity import Identifier
from veilwatch.traffic.subscriber.messages import ue_key
from veilwatch.traffic.subscriber.pseudonym import KeyRing
from veilwatch.traffic.subscriber.values import ValueReader

pytestmark = pytest.mark.corpus
pytest.importorskip("pycrate_mobile")

USER_PLANE = {0, 1, 2, 3, 4, 5, 15, 16, 31, 33, 34, 37, 38, 39}
FIELDS = (
    *("frame.number", "frame.protocols"),
    *("gtpv2.f_teid_interface_type", "gtpv2.f_teid_gre_key", "gtpv2.f_teid_ipv4"),
    *("gtpv2.pdn_addr_and_prefix.ipv4", "gtpv2.pdn_addr_and_prefix.ipv6", "gtpv2.apn"),
    *("pfcp.f_teid.teid", "pfcp.f_teid.ipv4_addr", "pfcp.f_teid.ipv6_addr"),
    *("pfcp.outer_hdr_creation.teid", "pfcp.outer_hdr_creation.ipv4"),
    *("pfcp.ue_ip_addr_ipv4", "pfcp.ue_ip_addr_ipv6", "pfcp.apn_dnn"),
    *("gtp.teid_data", "gtp.user_ipv4", "gtp.apn", "e212.imsi", "gtp.ext_imsi"),
)


@dataclass
class Seen:
    """What one frame says."""

    teids: set[int] = field(default_factory=set)
    addresses: set[int] = field(default_factory=set)
    ues: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    tokens: set[bytes] = field(default_factory=set)


def fields_known() -> list[str]:
    out = subprocess.run(["tshark", "-G", "fields"], capture_output=True, text=True, check=True)
    names = {line.split("\t")[2] for line in out.stdout.splitlines() if line.startswith("F\t")}
    return [name for name in FIELDS if name in names]


def by_tshark(path: Path, names: list[str], keys: KeyRing) -> dict[int, Seen]:
    """What tshark shows of each frame's control message; `names` are the fields asked for."""
    command = ["tshark", "-n", "-r", str(path), "-Y", "gtpv2 || pfcp || (gtp && udp.port==2123)"]
    command += ["-T", "fields", "-E", "separator=|", "-E", "aggregator=;"]
    for name in names:
        command += ["-e", name]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    frames = {}
    for line in out.splitlines():
        row = dict(zip(names, line.split("|"), strict=True))
        if row["frame.protocols"].count(":ip") + row["frame.protocols"].count(":ipv6") > 1:
            continue  # inside a tunnel or an ICMP error: not the core's own message

        def many(name: str, row: dict[str, str] = row) -> list[str]:
            return [item for item in row.get(name, "").split(";") if item]

        seen = Seen()
        kinds = many("gtpv2.f_teid_interface_type")
        for kind, teid in zip(kinds, many("gtpv2.f_teid_gre_key"), strict=True):
            if int(kind) in USER_PLANE:
                seen.teids.add(int(teid, 0))
        for name in ("pfcp.f_teid.teid", "pfcp.outer_hdr_creation.teid", "gtp.teid_data"):
            seen.teids.update(int(teid, 0) for teid in many(name))
        for name in names:
            if "f_teid.ip" in name or name.endswith("creation.ipv4"):
                seen.addresses.update(map(address_number, many(name)))
            elif name.startswith("gtpv2.pdn") or "ue_ip_addr" in name or name == "gtp.user_ipv4":
                seen.ues.update(
                    ue_key(address_number(text)) for text in many(name) if int(ip_address(text))
                )
        for name in ("gtpv2.apn", "pfcp.apn_dnn", "gtp.apn"):
            seen.names.update(many(name))
        for digits in many("e212.imsi"):
            seen.tokens.add(keys.token("imsi", digits.encode()))
        frames[int(row["frame.number"])] = seen
    return frames


def by_us(path: Path, keys: KeyRing) -> dict[int, Seen]:
    """What the reader finds in each frame."""
    reader, decoder = MessageReader(Identifier(keys)), Decoder()
    frames: dict[int, Seen] = {}
    with open_captures([path]) as stream:
        for block in stream:
            batch = decoder.decode(block)
            for row in control_rows(batch):
                if batch.packets["gtp_depth"][row]:
                    continue
                seen = frames.setdefault(int(batch.packets["number"][row]), Seen())
                for message in reader.read(datagram(batch, int(row))):
                    ends = [end for tunnel in message.tunnels for end in tunnel.ends]
                    seen.teids.update(end.teid for end in ends)
                    seen.addresses.update(end.address for end in ends)
                    seen.ues.update(map(ue_key, message.addresses))
                    seen.names.add(message.apn)
                    seen.tokens.add(message.token)
    return frames


GENERATED = {"pfcp-796db3.pcap.gz", "pfcp-a3db61.pcap", "pfcp-ebd046.pcapng"}
"""Captures of a generator that puts random elements into random messages: tshark shows an F-TEID
within a Remove URR, which the directory rightly passes over. Of these, single elements are
compared."""

GROUPS = {
    *range(1, 19),
    *(51, 54, 58, 59, 68, 77, 78, 79, 80, 83, 85, 86, 87, 99, 102, 105, 118, 127, 128, 129, 130),
    *(132, 143, 147, 165, 166, 167, 168, 169, 175, 176, 183, 187, 188, 189, 190, 195, 199, 200),
    *(201, 203, 205, 211, 212, 213, 214, 216, 218, 220, 221, 225, 226, 227, 233, 238, 239, 242),
    *(247, 252, 254, 255, 256, 261, 263, 264, 267, 270, 277, 283, 290, 293, 294, 295, 300, 302),
    *(303, 315, 316, 317),
}
"""Types of PFCP elements that hold elements (TS 29.244 table 8.1.2-1)."""


def elements(data: bytes) -> Iterator[Element]:
    """Every element of a PFCP message, at every depth."""
    for element in walk_pfcp(data):
        yield element
        if element.kind in GROUPS:
            yield from elements(element.value)


def by_elements(path: Path, keys: KeyRing) -> dict[int, Seen]:
    """What single elements say, wherever they stand."""
    decoder = Decoder()
    frames = {}
    with open_captures([path]) as stream:
        for block in stream:
            batch = decoder.decode(block)
            for row in control_rows(batch):
                data = datagram(batch, int(row)).data
                seen = frames[int(batch.packets["number"][row])] = Seen()
                values = ValueReader()
                for kind, _, value in elements(data[16 if data[0] & 1 else 8 :]):
                    end = None
                    if kind == 21:
                        end = values.pfcp_end(value)
                    elif kind == 84:
                        end = values.outer_header(value)
                    elif kind == 93:
                        seen.ues.update(map(ue_key, values.ue_addresses(value) or ()))
                    elif kind == 159:
                        seen.names.add(values.name(value) or "")
                    elif kind == 141 and (digits := (values.user_id(value) or {}).get("imsi")):
                        seen.tokens.add(keys.token("imsi", digits))
                    if end is not None and end.name is not None:
                        seen.teids.add(end.name)
                        seen.addresses.update(end.addresses)
    return frames


def lacking(ours: dict[int, Seen], theirs: dict[int, Seen]) -> Iterator[tuple[int, str, set[Any]]]:
    for number, seen in theirs.items():
        mine = ours.get(number, Seen())
        for kind in ("teids", "addresses", "ues", "names", "tokens"):
            missing = getattr(seen, kind) - getattr(mine, kind)
            if missing:
                yield number, kind, missing


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_what_tshark_shows_is_found(corpus_path: Path) -> None:
    keys = KeyRing(bytes(range(32)))
    names = fields_known()
    found: Counter[str] = Counter()
    paths = sorted(
        set((corpus_path / "gtp").glob("*cap*"))
        - {corpus_path / "gtp" / name for name in GENERATED}
    )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        shown = list(pool.map(lambda path: by_tshark(path, names, keys), paths))
    for path, theirs in zip(paths, shown, strict=True):
        assert not list(lacking(by_us(path, keys), theirs)), path.name
        for seen in theirs.values():
            for kind in ("teids", "addresses", "ues", "names", "tokens"):
                found[kind] += len(getattr(seen, kind))
    assert found["teids"] > 300 and found["addresses"] > 200 and found["ues"] > 100
    assert found["names"] > 40 and found["tokens"] >= 50


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("name", sorted(GENERATED))
def test_single_elements_of_generated_messages(corpus_path: Path, name: str) -> None:
    path, keys = corpus_path / "gtp" / name, KeyRing(bytes(32))
    # An outer header that is not GTP-U's has an address, too: ours has none then.
    names = [field for field in fields_known() if field != "pfcp.outer_hdr_creation.ipv4"]
    theirs = by_tshark(path, names, keys)
    left = list(lacking(by_elements(path, keys), theirs))
    assert not left
