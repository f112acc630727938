"""What the lab writes, as tshark and the corpus reader see it."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from tests.corpus.lab.conftest import tshark
from veilwatch.corpus.lab import field_capture, load_profiles
from veilwatch.corpus.lab.build import CAPTURES_PER_PROFILE, KEPT, WHOLE
from veilwatch.corpus.manifest import read_manifest

CHECKED = ["-o", "tcp.reassemble_out_of_order:TRUE"] + [
    option
    for protocol in ("ip", "udp", "tcp")
    for option in ("-o", f"{protocol}.check_checksum:TRUE")
]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_manifest_is_readable_and_names_everything_emulated(lab: Path) -> None:
    entries = read_manifest(lab)
    trained = [v.id for p in load_profiles() for v in p.variant if not v.field]
    assert {entry.group for entry in entries} == set(trained)
    families = Counter(entry.family for entry in entries)
    assert set(families.values()) == {CAPTURES_PER_PROFILE}
    kinds = {profile.name: profile.kind for profile in load_profiles()}
    for entry in entries:
        assert entry.extra["emulated"] == "1" and "emulated" in entry.extra["notes"]
        assert (entry.label == "malicious") == entry.family.endswith("-like")
        assert entry.is_ransomware == (kinds[entry.family] == "ransomware")
        head = entry.file.read_bytes()[:400]
        assert b"emulated traffic, made by Veilwatch lab, seed 3" in head
    assert len({entry.capture_start for entry in entries}) > len(entries) / 2


@pytest.mark.parametrize(
    "name",
    [
        "malicious/WannaCry-like/wannacry-a-0",
        "malicious/Cerber-like/cerber-a-1",
        "malicious/Akira-like/akira-a-1",
        "benign/voice-call/voice-b-0",
        "benign/file-server/files-b-1",
        "benign/time-sync/time-b-0",
    ],
)
def test_tshark_finds_nothing_malformed_and_every_checksum_good(lab: Path, name: str) -> None:
    path = lab.parent / f"{name}.pcapng"
    assert tshark(path, "-Y", "_ws.malformed", *CHECKED) == []
    bad = "ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0"
    assert tshark(path, "-Y", bad, *CHECKED) == []
    good = tshark(path, "-Y", "udp.checksum.status == 1 && gtp", *CHECKED)
    assert len(good) == len(tshark(path, "-Y", "frame.cap_len == frame.len"))


def test_field_capture_is_sound_and_its_handshakes_are_recognised(field: Path) -> None:
    assert tshark(field, "-Y", "_ws.malformed", *CHECKED) == []
    truth = rows(field.with_suffix(".flows.csv"))
    encrypted = {
        (row["src_ip"], row["src_port"])
        for row in truth
        if row["protocol"] == "6" and row["dst_port"] in {"443", "8443", "993"}
    }
    hellos = tshark(
        field, "-Y", "tls.handshake.type == 1", "-T", "fields", "-e", "ip.src", "-e", "tcp.srcport"
    )
    said = {(addresses.split(",")[-1], port) for addresses, port in hellos}
    # probes of 443 by the benign inventory never get as far as a ClientHello
    answered = {
        (row["src_ip"], row["src_port"]) for row in truth if int(row["packets"]) > 8
    } & encrypted
    assert answered and answered <= said
    versions = {
        value
        for line in tshark(
            field, "-Y", "tls.handshake.type == 2", "-T", "fields",
            "-e", "tls.handshake.extensions.supported_version", "-e", "tls.handshake.version",
        )
        for value in [line[0] or line[-1]]
    }  # fmt: skip
    assert versions == {"0x0304", "0x0303"}
    assert tshark(field, "-Y", "smb2 || dns")


def test_tunnels_belong_to_subscribers(field: Path) -> None:
    found = tshark(
        field, "-T", "fields", "-e", "ip.src", "-e", "ip.dst", "-e", "gtp.teid",
        "-e", "gtp.ext_hdr.pdu_ses_con.pdu_type", "-e", "gtp.ext_hdr.pdu_ses_con.qos_flow_id",
    )  # fmt: skip
    tunnels: dict[tuple[str, str], set[tuple[str, str, str]]] = {}
    for sources, destinations, teid, kind, qfi in found:
        outer, inner = sources.split(",")
        ends = inner if kind == "1" else destinations.split(",")[1]
        assert (outer.startswith("172.20.1.")) == (kind == "1")
        tunnels.setdefault((ends, kind), set()).add((teid, qfi, outer))
    subscribers = {row["subscriber"] for row in rows(field.with_suffix(".truth.csv"))}
    assert {address for address, _ in tunnels} == subscribers
    assert all(len(ways) == 1 for ways in tunnels.values())
    assert len({next(iter(ways))[0] for ways in tunnels.values()}) == len(tunnels)


def test_field_truth_holds_only_unseen_variants(field: Path) -> None:
    fresh = {v.id for p in load_profiles() if p.malicious for v in p.variant if v.field}
    infected = [r for r in rows(field.with_suffix(".truth.csv")) if r["label"] == "malicious"]
    assert len(infected) == 3
    assert {row["variant"] for row in infected} <= fresh
    flows = rows(field.with_suffix(".flows.csv"))
    mean = [row for row in flows if row["label"] == "malicious"]
    assert {row["src_ip"] for row in mean} == {row["subscriber"] for row in infected}
    assert len({(r["src_ip"], r["src_port"], r["dst_ip"], r["dst_port"]) for r in flows}) > 0.9 * (
        len(flows)
    )


def headers(path: Path) -> list[list[str]]:
    return tshark(
        path, "-T", "fields", "-e", "frame.time_epoch", "-e", "ip.src", "-e", "ip.dst",
        "-e", "frame.len", "-e", "gtp.teid", "-e", "ip.ttl", "-e", "ip.id", "-e", "tcp.flags",
    )  # fmt: skip


def test_same_seed_gives_the_same_packets_up_to_random_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / name / "field.pcapng" for name in ("one", "two", "three")]
    for path, seed in zip(paths, (5, 5, 6), strict=True):
        field_capture(path, seed=seed, subscribers=5, infected=2, scale=0.2)
    first, second, other = (headers(path) for path in paths)
    assert first == second
    assert first != other
    tables = [path.with_suffix(".flows.csv").read_text() for path in paths]
    assert tables[0] == tables[1] != tables[2]


def test_truth_has_every_packet_of_a_capture(lab: Path) -> None:
    for name in ("malicious/Conti-like/conti-a-0", "benign/web-browsing/web-a-0"):
        counted = sum(int(r["packets"]) for r in rows(lab.parent / "truth" / f"{name}.csv"))
        assert counted == len(tshark(lab.parent / f"{name}.pcapng"))


def test_manifest_names_what_the_infection_talked_to(lab: Path) -> None:
    for entry in read_manifest(lab):
        truth = rows(lab.parent / "truth" / f"{entry.name.removesuffix('.pcapng')}.csv")
        named = set(entry.malicious_endpoints.split(";")) - {""}
        assert bool(named) == (entry.label == "malicious")
        for row in truth:
            if row["dst_port"] != "53":
                there = f"{row['dst_ip']}:{row['dst_port']}" in named
                assert there == (row["label"] == "malicious")


def test_infected_hosts_are_used_by_people_too(lab: Path) -> None:
    for entry in read_manifest(lab):
        truth = rows(lab.parent / "truth" / f"{entry.name.removesuffix('.pcapng')}.csv")
        assert len({row["src_ip"] for row in truth}) == 1
        if entry.label == "malicious":
            assert len({row["family"] for row in truth} - {entry.family}) >= 5


def test_packets_are_cut_as_in_the_real_corpus(lab: Path) -> None:
    path = lab.parent / "benign/file-server/files-b-0.pcapng"
    told: Counter[tuple[str, ...]] = Counter()
    cut = 0
    for length, kept, payload, *ends in tshark(
        path, "-Y", "tcp", "-T", "fields", "-e", "frame.len", "-e", "frame.cap_len",
        "-e", "tcp.len", "-e", "ip.src", "-e", "ip.dst", "-e", "tcp.srcport", "-e", "tcp.dstport",
    ):  # fmt: skip
        told[tuple(ends)] += int(payload) > 0
        whole = told[tuple(ends)] <= WHOLE
        assert int(length) - int(kept) == (0 if whole else max(int(payload) - KEPT, 0))
        cut += not whole
    assert cut
