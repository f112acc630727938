"""Blends as files: their flows are those of blended tables, and tshark finds nothing wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.cli.helpers import veilwatch
from tests.corpus.tshark import tshark
from tests.learning.features.factory import START, ethernet, played_packets, read
from tests.learning.training.factory import entry
from veilwatch.corpus import blend_files
from veilwatch.corpus import cache as cache_module
from veilwatch.corpus.blend import blend_flows
from veilwatch.corpus.blend_files import MANIFEST, REFUSED, BlendOptions, write_blends
from veilwatch.corpus.catalogue import Corpus, load_corpus
from veilwatch.corpus.encapsulate import encapsulate
from veilwatch.corpus.manifest import read_manifest, write_manifest
from veilwatch.errors import CorpusError, OutputError
from veilwatch.progress import Silent
from veilwatch.traffic.capture import PcapngWriter, open_captures

HOST, NEIGHBOUR, HOST6 = "192.168.7.7", "192.168.7.8", "fd00::7"
HOST_MAC, ROUTER_MAC = "02:07:00:00:00:07", "02:07:00:00:00:01"
EPOCH_NS = int(START.timestamp()) * 10**9 - 40 * 86_400 * 10**9

Timed = tuple[int, bytes]

NUMBERS = ("flow_id", "parent_id", "source", "first_number", "capture", "end_reason")
"""Columns that another file numbers anew; and with other traffic after it a flow ends by silence
and not with the file."""

ORDER = ("first_ns", "src_ip", "src_port", "dst_ip", "dst_port", "protocol", "last_ns")


def day(host: str = HOST, *, first_port: int = 50_000) -> list[Timed]:
    """What a person's host says to four servers within two minutes, as IP packets."""
    kind: Callable[..., Packet] = IPv6 if ":" in host else IP
    net = "2001:db8:9::" if ":" in host else "203.0.113."
    out: list[Packet] = []
    for k in range(12):
        up, down = kind(src=host, dst=f"{net}{k % 4}"), kind(src=f"{net}{k % 4}", dst=host)
        mine, theirs = first_port + k, 443
        if k % 3 == 0:
            out.append(up / UDP(sport=mine, dport=9999) / Raw(b"question"))
            out.append(down / UDP(sport=9999, dport=mine) / Raw(b"an answer" * k))
            continue
        out.append(up / TCP(sport=mine, dport=theirs, flags="S", seq=k))
        out.append(down / TCP(sport=theirs, dport=mine, flags="SA", seq=9, ack=k + 1))
        said = Raw(bytes([k]) * (100 + k))
        out.append(up / TCP(sport=mine, dport=theirs, flags="PA", seq=k + 1, ack=10) / said)
        out.append(down / TCP(sport=theirs, dport=mine, flags="A", seq=10, ack=k + 101 + k))
    return [(EPOCH_NS + n * 3_000_000_001, bytes(packet)) for n, packet in enumerate(out)]


def framed(data: bytes, host: str = HOST) -> bytes:
    """An IP packet in the Ethernet frame that its host's network would show."""
    version = data[0] >> 4
    packet = IP(data) if version == 4 else IPv6(data)
    ends = (HOST_MAC, ROUTER_MAC) if packet.src == host else (ROUTER_MAC, HOST_MAC)
    return bytes(Ether(src=ends[0], dst=ends[1], type=0x0800 if version == 4 else 0x86DD)) + data


def tagged(data: bytes) -> bytes:
    frame = Ether(framed(data))
    return bytes(Ether(src=frame.src, dst=frame.dst) / Dot1Q(vlan=7, type=frame.type)) + data


def cooked(data: bytes) -> bytes:
    outgoing = data[12:16] == bytes(map(int, HOST.split(".")))
    return bytes([0, 4 if outgoing else 0, 0, 1, 0, 6, 2, 7, 0, 0, 0, 1, 0, 0, 8, 0]) + data


def bare(data: bytes) -> bytes:
    return data


FRAMES: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "ethernet": (1, framed),
    "vlan": (1, tagged),
    "raw": (101, bare),
    "cooked": (113, cooked),
}


def put(
    path: Path,
    packets: Iterable[Timed],
    frame: Callable[[bytes], bytes] = ethernet,
    *,
    link: int = 1,
    cut: int | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with PcapngWriter(path, link=link) as writer:
        for ts_ns, data in packets:
            framed = frame(data)
            writer.write(ts_ns, framed[:cut], len(framed))
    return path


@pytest.fixture(scope="module")
def infected() -> list[Timed]:
    return [(packet.ts_ns, packet.data) for packet in played_packets()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a corpus lies; its flow cache is a folder of its own."""
    monkeypatch.setattr(cache_module, "cache_home", lambda: tmp_path / "cache")
    return tmp_path / "corpus"


def corpus_of(folder: Path, *, benign: int = 1, **more: Any) -> Corpus:
    """Return the corpus of `infected.pcapng` and the used hosts `used-1.pcapng` …"""
    bad = replace(entry(0, "malicious", group="g", family="Emotet"), name="infected.pcapng", **more)
    good = [
        replace(entry(k, "benign"), name=f"used-{k}.pcapng", extra={"licence": f"licence {k}"})
        for k in range(1, benign + 1)
    ]
    write_manifest(folder / MANIFEST, [bad, *good])
    return load_corpus(folder / MANIFEST, workers=1)


def blended(corpus: Corpus, out: Path, **settings: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Write one blend of one used host; return its flows, and those of blended tables."""
    options = BlendOptions(sizes=(1,), **settings)
    summary = write_blends(corpus, out, options=options)
    (row,) = summary.entries
    (blend,) = blend_files._Blender(corpus, out).plan(options)
    return read(row.file).frame, blend_flows(corpus.flows, [blend])[0]


def assert_same(found: pl.DataFrame, wanted: pl.DataFrame, *, but: tuple[str, ...] = ()) -> None:
    columns = [name for name in wanted.columns if name not in (*NUMBERS, *but)]
    found, wanted = (frame.select(columns).sort(ORDER) for frame in (found, wanted))
    assert found.height == wanted.height
    for name in columns:
        one, other = found[name], wanted[name]
        if one.dtype.is_float():
            assert np.allclose(one.to_numpy(), other.to_numpy(), equal_nan=True), name
        else:
            assert one.equals(other), name


@pytest.mark.parametrize("base", ["ethernet", "raw", "cooked"])
@pytest.mark.parametrize("used", FRAMES)
def test_flows_of_the_file_are_those_of_blended_tables(
    folder: Path, infected: list[Timed], base: str, used: str
) -> None:
    link, frame = FRAMES[base]
    put(folder / "infected.pcapng", infected, ethernet if base == "ethernet" else frame, link=link)
    link, frame = FRAMES[used]
    put(folder / "used-1.pcapng", day(), frame, link=link)
    found, wanted = blended(corpus_of(folder), folder / "out")
    assert found.height > 12
    assert_same(found, wanted)


def test_ipv6_hosts_are_merged_with_ipv6_hosts(folder: Path) -> None:
    put(folder / "infected.pcapng", day("fd00::66"), lambda data: framed(data, "fd00::66"))
    put(folder / "used-1.pcapng", day())
    put(folder / "used-2.pcapng", day(HOST6, first_port=40_000), lambda d: framed(d, HOST6))
    found, wanted = blended(corpus_of(folder, benign=2), folder / "out")
    assert_same(found, wanted)
    assert set(found["src_ip"]) == {"fd00::66"}


WRONG = " || ".join(
    [f"{name}.checksum.status == 0" for name in ("ip", "tcp", "udp", "icmp")]
    + ["_ws.malformed", "_ws.expert.severity == error"]
)


@pytest.mark.parametrize("used", FRAMES)
def test_tshark_finds_every_checksum_right(folder: Path, used: str) -> None:
    put(folder / "infected.pcapng", day("10.1.2.3", first_port=60_000), lambda d: framed(d))
    link, frame = FRAMES[used]
    put(folder / "used-1.pcapng", day(), frame, link=link)
    (row,) = write_blends(
        corpus_of(folder), folder / "out", options=BlendOptions(sizes=(1,))
    ).entries
    assert tshark(row.file, "frame.number", keep=WRONG) == []
    assert len(tshark(row.file, "frame.number", keep="tcp.checksum.status == 1")) == 64
    times = [float(time) for (time,) in tshark(row.file, "frame.time_epoch", keep="frame")]
    assert times == sorted(times) and len(times) == 80
    assert tshark(row.file, "frame.number", keep=f"ip.addr == {HOST}") == []


def test_the_host_keeps_one_mac(folder: Path) -> None:
    mac = "02:66:00:00:00:66"
    put(
        folder / "infected.pcapng",
        day("10.1.2.3", first_port=60_000),
        lambda d: bytes(Ether(framed(d, "10.1.2.3"))).replace(
            bytes.fromhex(HOST_MAC.replace(":", "")), bytes.fromhex(mac.replace(":", ""))
        ),
    )
    put(folder / "used-1.pcapng", day(), framed)
    (row,) = write_blends(
        corpus_of(folder), folder / "out", options=BlendOptions(sizes=(1,))
    ).entries
    sent = tshark(row.file, "eth.src", keep="ip.src == 10.1.2.3")
    got = tshark(row.file, "eth.dst", keep="ip.dst == 10.1.2.3")
    assert {mac for (mac,) in sent + got} == {mac} and len(sent + got) == 80


def test_other_hosts_and_what_they_say_to_this_one_are_left_out(folder: Path) -> None:
    put(folder / "infected.pcapng", day("10.1.2.3", first_port=60_000))
    inbound = IP(src="198.51.100.9", dst=HOST) / TCP(sport=4000, dport=22, flags="S")
    own = [(ts, framed(data)) for ts, data in day()]
    others = [
        *((ts + 5, ethernet(data)) for ts, data in day(NEIGHBOUR)[:20]),
        (own[3][0] + 7, bytes(Ether() / ARP(psrc=HOST))),
        (own[4][0] + 7, ethernet(bytes(inbound))),
    ]
    put(folder / "used-1.pcapng", sorted(own + others), bare)
    found, wanted = blended(corpus_of(folder), folder / "out")
    assert_same(found, wanted)
    assert set(found["src_ip"]) == {"10.1.2.3"}
    with open_captures([folder / "out"]) as stream:
        assert sum(len(block) for block in stream) == 80


def test_packets_that_were_cut_keep_their_length(folder: Path) -> None:
    put(folder / "infected.pcapng", day("10.1.2.3", first_port=60_000))
    put(folder / "used-1.pcapng", day(), framed, cut=80)
    found, wanted = blended(corpus_of(folder), folder / "out")
    assert_same(found, wanted)
    with open_captures([folder / "out"]) as stream:
        records = np.concatenate([block.records.copy() for block in stream])
    cut = records[records["captured"] < records["length"]]
    assert set(cut["captured"]) == {80} and cut["length"].max() > 160


def test_later_fragments_and_errors_come_along(folder: Path) -> None:
    put(folder / "infected.pcapng", day("10.1.2.3", first_port=60_000))
    big = IP(src=HOST, dst="203.0.113.1", id=99) / UDP(sport=9, dport=9) / Raw(bytes(3000))
    shown = IP(src="203.0.113.2", dst=HOST) / UDP(sport=53, dport=5) / Raw(b"late")
    error = IP(src=HOST, dst="203.0.113.2") / ICMP(type=3, code=3) / Raw(bytes(shown))
    strange = IP(src=NEIGHBOUR, dst="203.0.113.1", id=98) / UDP(sport=9, dport=9)
    more = [*fragment(big, 1400), error, *fragment(strange / Raw(bytes(3000)), 1400)]
    end = EPOCH_NS + 200 * 10**9
    late = [(end + k, bytes(packet)) for k, packet in enumerate(more)]
    put(folder / "used-1.pcapng", [*day(), *late], framed)
    found, wanted = blended(corpus_of(folder), folder / "out")
    changed = [name for name in wanted.columns if "prefix_" in name]  # the address shown
    assert_same(found, wanted, but=tuple(changed))
    (file,) = (folder / "out" / "x1").iterdir()
    assert len(tshark(file, "ip.src", keep="ip.frag_offset > 0")) == 2
    assert tshark(file, "ip.dst", keep="icmp.type == 3 && icmp.checksum.status == 1") == [
        ["203.0.113.2,10.1.2.3"]
    ]


def test_the_used_host_comes_into_the_tunnel_of_a_subscriber(folder: Path) -> None:
    inner = put(folder / "inner.pcapng", day("10.45.0.9", first_port=60_000))
    encapsulate([inner], folder / "infected.pcapng")
    put(folder / "used-1.pcapng", day(), framed)
    found, wanted = blended(corpus_of(folder), folder / "out")
    tunnel = [name for name in wanted.columns if name.startswith(("gtp_", "outer_", "subscriber"))]
    tunnel += [f"{way}_{name}" for way in ("fwd", "bwd") for name in ("teid", "qfi")]
    assert_same(found, wanted, but=(*tunnel, "handovers"))
    assert found.height == 24
    assert found.select("fwd_teid", "bwd_teid", "outer_src_ip", "fwd_qfi").unique().height == 1
    assert set(found["gtp_direction"]) == {"uplink"} and set(found["handovers"]) == {0}


def test_a_tunnel_of_which_one_way_is_seen_is_refused(folder: Path) -> None:
    one_way = [(ts, d) for ts, d in day("10.45.0.9") if IP(d).src == "10.45.0.9"]
    encapsulate([put(folder / "inner.pcapng", one_way)], folder / "infected.pcapng")
    put(folder / "used-1.pcapng", day(), framed)
    with pytest.raises(CorpusError, match="does not show both directions"):
        write_blends(corpus_of(folder), folder / "out")


def test_a_used_host_in_a_tunnel_is_taken_out_of_it(folder: Path) -> None:
    put(folder / "infected.pcapng", day("10.1.2.3", first_port=60_000))
    encapsulate([put(folder / "inner.pcapng", day())], folder / "used-1.pcapng")
    found, wanted = blended(corpus_of(folder), folder / "out")
    assert set(found["gtp_depth"]) == {0}
    tunnel = [name for name in wanted.columns if name.startswith(("gtp_", "outer_", "subscriber"))]
    tunnel += [f"{way}_{name}" for way in ("fwd", "bwd") for name in ("teid", "qfi")]
    assert_same(found, wanted, but=(*tunnel, "handovers"))


def test_flows_whose_ports_are_taken_are_left_out_and_counted(folder: Path) -> None:
    put(folder / "infected.pcapng", day("10.1.2.3"))
    put(folder / "used-1.pcapng", [*day(), *day(first_port=40_000)])
    summary = write_blends(corpus_of(folder), folder / "out", options=BlendOptions(sizes=(1,)))
    found = read(summary.entries[0].file).frame
    assert 0 < summary.left_out <= 12
    assert found.height == 36 - summary.left_out
    ports = found.filter(pl.col("src_port") >= 50_000)
    assert ports.select("src_port").is_duplicated().sum() == 2 * (12 - summary.left_out)


def test_rows_say_whose_blend_it_is(folder: Path, infected: list[Timed]) -> None:
    put(folder / "infected.pcapng", infected)
    put(folder / "used-1.pcapng", day())
    put(folder / "used-2.pcapng", day("192.168.9.9", first_port=30_000))
    put(folder / "used-3.pcapng", day("192.168.9.8", first_port=20_000))
    corpus = corpus_of(folder, benign=3)
    write_blends(corpus, folder / "out", options=BlendOptions(sizes=(1, 3), seed=1))
    one, three = read_manifest(folder / "out" / MANIFEST)
    assert (one.label, one.family, one.group) == ("malicious", "Emotet", "g")
    assert one.publisher == corpus.entries[0].publisher
    assert three.extra["blended"].count(";") == 2
    assert one.extra["used_hosts"] == "1" and "emulated" in one.extra["notes"]
    assert three.extra["licence"].count("licence") == 3
    told = set(three.malicious_endpoints.split(";"))
    own = corpus.flows.filter(pl.col("capture") == 0)
    assert told == {f"{ip}:{port}" for ip, port in own.select("dst_ip", "dst_port").iter_rows()}


def test_what_evidence_names_is_kept_and_shared_servers_tell_nothing(folder: Path) -> None:
    put(folder / "infected.pcapng", day("10.1.2.3", first_port=60_000))
    put(folder / "used-1.pcapng", day())
    options = BlendOptions(sizes=(1,))
    (row,) = write_blends(corpus_of(folder), folder / "out", options=options).entries
    assert row.malicious_endpoints == ""
    corpus = corpus_of(folder, malicious_endpoints="203.0.113.1:443")
    (row,) = write_blends(corpus, folder / "named", options=options).entries
    assert row.malicious_endpoints == "203.0.113.1:443"


class Interrupting(Silent):
    """Presses Ctrl-C when a number of blends are done."""

    def __init__(self, after: int) -> None:
        self._left = after

    def advance(self, amount: float = 1.0) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


def files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_is_whole_is_not_made_again(folder: Path) -> None:
    put(folder / "infected.pcapng", day("10.1.2.3", first_port=60_000))
    put(folder / "used-1.pcapng", day())
    put(folder / "used-2.pcapng", day("192.168.9.9", first_port=30_000))
    corpus, options = corpus_of(folder, benign=2), BlendOptions(sizes=(1, 2))
    with pytest.raises(KeyboardInterrupt):
        write_blends(corpus, folder / "out", options=options, progress=Interrupting(1))
    first = files(folder / "out")
    assert len(first) == 1 and next(iter(first)).startswith("x1/")
    summary = write_blends(corpus, folder / "out", options=options)
    assert (summary.made, len(summary.entries)) == (1, 2)
    assert first.items() <= files(folder / "out").items()
    before = files(folder / "out")
    assert write_blends(corpus, folder / "out", options=options).made == 0
    assert {n: t for n, t in files(folder / "out").items() if n != MANIFEST} == {
        n: t for n, t in before.items() if n != MANIFEST
    }
    assert write_blends(corpus, folder / "out", options=replace(options, seed=5)).made > 0


def test_a_full_disk_leaves_nothing_half(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "infected.pcapng", day("10.1.2.3", first_port=60_000))
    put(folder / "used-1.pcapng", day())
    corpus = corpus_of(folder)

    class Full(PcapngWriter):
        def write(self, *args: Any, **more: Any) -> None:
            if self.packets == 30:
                raise OutputError("cannot write: No space left on device", where=self.path)
            super().write(*args, **more)

    monkeypatch.setattr(blend_files, "PcapngWriter", Full)
    with pytest.raises(OutputError, match="No space left"):
        write_blends(corpus, folder / "out")
    assert files(folder / "out") == {}


@pytest.mark.parametrize(
    ("captures", "reason"),
    [({"used-1": HOST6}, "partners"), ({"used-1": "192.168.7.7"}, "time")],
)
def test_what_cannot_be_blended_is_named(
    folder: Path, captures: dict[str, str], reason: str
) -> None:
    early = [(ts - EPOCH_NS, data) for ts, data in day("10.1.2.3", first_port=60_000)]
    put(folder / "infected.pcapng", early[:1] if reason == "time" else day("10.1.2.3"))
    for name, host in captures.items():
        put(folder / f"{name}.pcapng", day(host))
    if reason == "time":
        put(folder / "infected.pcapng", early)
    with pytest.raises(CorpusError, match=REFUSED[reason][:30]):
        write_blends(corpus_of(folder), folder / "out", options=BlendOptions(sizes=(1,)))
    assert not (folder / "out" / MANIFEST).exists()


@pytest.mark.parametrize("sizes", [(), (0,), (101,), (1, 1)])
def test_sizes_are_bounded(sizes: tuple[int, ...]) -> None:
    with pytest.raises(CorpusError, match="sizes"):
        BlendOptions(sizes=sizes)


def test_the_command(folder: Path) -> None:
    put(folder / "infected.pcapng", day("10.1.2.3", first_port=60_000))
    put(folder / "used-1.pcapng", day())
    corpus_of(folder)

    def run(*more: str) -> tuple[int, str]:
        names = ["--corpus", str(folder / MANIFEST), "--out", str(folder / "out")]
        done = veilwatch("corpus", "blend", *names, "--workers", "1", *more)
        return done.returncode, done.stdout + done.stderr

    assert run("--sizes", "one")[0] == 2
    assert run("--families", "nobody")[0] == 2
    code, said = run("--sizes", "1", "--families", "Emotet", "--per-size", "3")
    assert code == 0 and "1 blend\n" in said and "Emulated use" in said
    code, said = run("--sizes", "1")
    assert code == 2 and "exists already" in said
    assert run("--sizes", "1", "--force")[1].count("earlier run") == 1
