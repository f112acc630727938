"""Captures parted into captures: nothing lost, nothing twice, nothing changed."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from scapy.utils import RawPcapNgReader

from tests.traffic.capture import build
from tests.traffic.pipeline.test_extract import START, connection, later, lookup, mixed, write
from veilwatch.errors import CaptureError, OutputError, VeilwatchError
from veilwatch.traffic.capture import Interface, PcapngWriter, PcapWriter, Rotation, open_captures
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.pipeline import (
    FlowReader,
    Format,
    GroupBy,
    Selection,
    SplitConfig,
    SplitResult,
    groupfiles,
    split,
)
from veilwatch.traffic.pipeline import (
    split as split_function,  # the module is hidden by its function
)
from veilwatch.traffic.pipeline.grouping import Grouping

NS = 10**9
Row = tuple[int, int, int, bytes]


def rows(*paths: str | Path) -> list[Row]:
    """Time, link type, length on the wire and bytes of every packet."""
    return [
        (record.ts_ns, record.link, record.length, record.frame)
        for path in paths
        for record in build.read_all(open_captures([path]))
    ]


def run(source: Path | list[Path], folder: Path, **values: Any) -> SplitResult:
    meter = values.pop("meter", MeterConfig())
    inputs = source if isinstance(source, list) else [source]
    return split(inputs, folder, SplitConfig(**values), meter=meter)


def captures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix != ".csv")


@pytest.fixture(scope="module")
def mixed_capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: Scapy takes longer to build its packets than they take to be parted."""
    return write(tmp_path_factory.mktemp("mixed") / "in.pcapng", mixed())


@pytest.fixture
def capture(mixed_capture: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(mixed_capture, tmp_path))


@pytest.mark.parametrize("by", list(GroupBy))
@pytest.mark.parametrize("form", list(Format))
def test_every_packet_is_in_exactly_one_file(
    capture: Path, tmp_path: Path, by: GroupBy, form: Format
) -> None:
    result = run(capture, tmp_path / "out", by=by, form=form)
    paths = captures(tmp_path / "out")
    assert Counter(rows(*paths)) == Counter(rows(capture))
    for path in paths:
        times = [row[0] for row in rows(path)]
        assert times == sorted(times)
    assert sorted(file.path for file in result.files) == paths
    assert {file.path: file.packets for file in result.files} == {
        path: len(rows(path)) for path in paths
    }
    assert result.written == result.captures.packets == len(rows(capture))
    assert (result.without_flow, result.unwanted) == (1, 0)
    assert [row[3] for row in rows(tmp_path / "out" / f"no-flow.{form}")] == [
        bytes(Ether() / ARP())
    ]


def test_a_file_for_each_flow_holds_its_packets_and_says_which(
    capture: Path, tmp_path: Path
) -> None:
    with FlowReader([capture]) as reader:
        flows = reader.read_all().frame
    run(capture, tmp_path / "out", by=GroupBy.FLOW)
    for flow in flows.iter_rows(named=True):
        path = tmp_path / "out" / f"flow-{flow['flow_id']:06}.pcapng"
        found = rows(path)
        assert len(found) == flow["fwd_packets"] + flow["bwd_packets"]
        assert (found[0][0], found[-1][0]) == (flow["first_ns"], flow["last_ns"])
        stream = open_captures([path])
        build.read_all(stream)
        made, identity = stream.report.files[0].comments
        assert "as seen on the wire" in made and "all flows" in made
        assert flow["src_ip"] in identity and str(flow["dst_port"]) in identity
        assert flow["tls_sni"] in identity and flow["service"] in identity
        # Read alone, the file gives the same flow.
        with FlowReader([path]) as alone:
            (again,) = alone.read_all().frame.iter_rows(named=True)
        kept = [name for name in flow if name not in {"flow_id", "parent_id", "first_number"}]
        assert str([flow[name] for name in kept]) == str([again[name] for name in kept])
    assert len(captures(tmp_path / "out")) == flows.height + 1


def test_groups_are_those_of_the_flow_table(capture: Path, tmp_path: Path) -> None:
    with FlowReader([capture]) as reader:
        flows = reader.read_all().frame
    packets = pl.col("fwd_packets") + pl.col("bwd_packets")
    for by, column in (("host", "src_ip"), ("application", "service"), ("server-name", "tls_sni")):
        result = run(capture, tmp_path / by, by=GroupBy(by))
        expected = dict(flows.group_by(column).agg(packets.sum()).iter_rows())
        found = {file.label.partition(" ")[2]: file.packets for file in result.files}
        for name in ("unknown", "none"):
            if name in found:
                found[""] = found.pop(name)
        found.pop("of no flow", None)
        found.pop("packets of no flow", None)
        assert {k: v for k, v in found.items() if k != "of no flow"} == expected


def test_flow_ids_are_the_same_in_every_run(tmp_path: Path) -> None:
    packets = mixed() + later(mixed(), 500) + later(mixed(), 1000)
    paths = [write(tmp_path / f"{k}.pcapng", packets[k::3]) for k in range(3)]
    meter = MeterConfig(active_timeout_s=1, max_flows=12)
    runs = []
    for _ in range(2):
        with FlowReader(paths, config=meter) as reader:
            runs.append([batch.packets["flow_id"].copy() for _, batch in reader.packets()])
    with FlowReader(paths, config=meter) as reader:
        counted: Counter[int] = Counter()
        for row in reader.read_all().frame.iter_rows(named=True):
            counted[row["flow_id"]] = row["fwd_packets"] + row["bwd_packets"]
        assert reader.meter.evicted > 0
    first, second = ([int(i) for part in run for i in part] for run in runs)
    assert first == second
    assert Counter(i for i in first if i) == counted


def test_a_connection_that_was_cut_is_one_file(tmp_path: Path) -> None:
    packets = connection(5000, "long.example", [1, 2, 70, 140])
    path = write(tmp_path / "in.pcapng", packets)
    meter = MeterConfig(active_timeout_s=60)
    run(path, tmp_path / "out", by=GroupBy.FLOW, meter=meter)
    assert rows(*captures(tmp_path / "out")) == rows(path)
    assert len(captures(tmp_path / "out")) == 1
    whole = run(path, tmp_path / "whole", selection=Selection(flow_ids=(1,)), meter=meter)
    assert whole.written == len(packets)
    part = run(path, tmp_path / "part", selection=Selection(flow_ids=(2,)), meter=meter)
    assert 0 < part.written < len(packets)
    assert part.unwanted == len(packets) - part.written


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(flow_ids=(1, 2)), lambda f: f["flow_id"] <= 2),
        (Selection(hosts=("10.0.0.53",)), lambda f: f["dst_ip"] == "10.0.0.53"),
        (Selection(hosts=("2001:DB8:0::1",)), lambda f: f["src_ip"] == "2001:db8::1"),
        (Selection(services=("tls",)), lambda f: f["service"] == "tls"),
        (Selection(services=("unknown",)), lambda f: f["service"] == ""),
        (Selection(server_names=("HOST?.example",)), lambda f: f["tls_sni"] != ""),
        (Selection(server_names=("host1*", "host2.example")),
         lambda f: f["tls_sni"] in {"host1.example", "host2.example"}),
        (Selection(server_names=("ost1.example", "host1.exampl", "host1xexample", "[h]ost1*")),
         lambda f: False),
        (Selection(server_names=("*",)), lambda f: f["tls_sni"] != ""),
        (Selection(teids=(77,)), lambda f: f["fwd_teid"] == 77),
        (Selection(where="dst_port = 53 AND src_port > 6005"),
         lambda f: f["dst_port"] == 53 and f["src_port"] > 6005),
        (Selection(where="tls_sni LIKE 'host1%' OR dst_port = 53", services=("tls",)),
         lambda f: f["tls_sni"] == "host1.example"),
        (Selection(services=("tls", "dns"), hosts=("10.0.0.1",), teids=(77,)), lambda f: False),
    ],
)  # fmt: skip
def test_selections(capture: Path, tmp_path: Path, selection: Selection, expected: Any) -> None:
    with FlowReader([capture]) as reader:
        flows = reader.read_all().frame
    wanted = {f["flow_id"]: f for f in flows.iter_rows(named=True) if expected(f)}
    result = run(capture, tmp_path / "out", by=GroupBy.FLOW, selection=selection)
    assert {file.path.name for file in result.files} == {
        f"flow-{flow_id:06}.pcapng" for flow_id in wanted
    }
    assert result.written == sum(f["fwd_packets"] + f["bwd_packets"] for f in wanted.values())
    assert result.written + result.unwanted + result.without_flow == result.captures.packets


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hosts": ("10.0.0",)}, "10.0.0: not an IP address"),
        ({"where": "nonsense = 1"}, "character 1: no column 'nonsense'"),
        ({"where": "dst_port +"}, "character 10: not understood: '+'"),
        ({"where": "dst_port"}, "expected a comparison of dst_port"),
        ({"where": "drop table flows"}, "no column 'drop'"),
        ({"where": "(select 1)"}, "no column 'select'"),
        ({"where": "dst_port = 'a'"}, "dst_port is a number"),
        ({"where": "service ~ '('"}, "not understood: \"~ '('\""),
    ],
)
def test_a_bad_selection_is_one_line(values: Any, words: str) -> None:
    with pytest.raises(VeilwatchError) as error:
        Selection(**values)
    assert words in str(error.value) and len(str(error.value)) < 300


def test_what_a_selection_says() -> None:
    assert str(Selection()) == "all flows" and not Selection()
    said = str(Selection(flow_ids=(1, 2), teids=(255,), where="dst_port = 443"))
    assert said == "flow 1 or 2, TEID 0x000000ff, where dst_port = 443"


def tunnelled(teid: int, inner: Packet, *, kind: int | None = None) -> Packet:
    gtp = GTP_U_Header(teid=teid, gtp_type=255)
    if kind is not None:
        gtp = GTP_U_Header(teid=teid, gtp_type=255, E=1, next_ex=0x85) / GTPPDUSessionContainer(
            type=kind, QFI=9
        )
    outer = IP(src="10.9.0.1", dst="10.9.0.2") / UDP(sport=2152, dport=2152)
    return Ether() / outer / gtp / inner


def test_decapsulated_packets_are_the_innermost(tmp_path: Path) -> None:
    up = IP(src="10.45.0.2", dst="192.0.2.9") / UDP(sport=7, dport=8) / Raw(b"u" * 100)
    down = IP(src="192.0.2.9", dst="10.45.0.2") / UDP(sport=8, dport=7) / Raw(b"d" * 10)
    bare = IP(src="10.0.0.1", dst="192.0.2.9") / UDP(sport=1, dport=2) / Raw(b"x")
    frames = [
        (bytes(tunnelled(1, up, kind=1)), None),
        (bytes(tunnelled(2, down, kind=0)), None),
        (bytes(tunnelled(1, up))[:-60], len(bytes(tunnelled(1, up)))),  # cut by the capture
        (bytes(Ether() / bare) + b"padding!", None),
        (bytes(Ether() / ARP()), None),
    ]
    path = tmp_path / "in.pcapng"
    with PcapngWriter(path) as writer:
        for k, (frame, length) in enumerate(frames):
            writer.write(START * NS + k, frame, length)
    result = run(path, tmp_path / "out", decapsulate=True)
    assert (result.written, result.without_flow) == (4, 1)
    (found,) = captures(tmp_path / "out")
    expected = [bytes(up), bytes(down), bytes(up)[:-60], bytes(bare)]
    lengths = [128, 38, 128, 29]
    assert rows(found) == [
        (START * NS + k, 101, lengths[k], frame) for k, frame in enumerate(expected)
    ]
    data = found.read_bytes()
    # epb_flags: outbound is uplink, inbound is downlink.
    assert data.count(bytes([2, 0, 4, 0, 2, 0, 0, 0])) == 1
    assert data.count(bytes([2, 0, 4, 0, 1, 0, 0, 0])) == 1
    with RawPcapNgReader(str(found)) as packets:
        assert [(data, meta.wirelen) for data, meta in packets] == list(
            zip(expected, lengths, strict=True)
        )


def mixed_links(tmp_path: Path) -> list[Path]:
    """Two captures, one of two interfaces, with packets of one flow on three link types."""
    packet = IP(src="10.0.0.1", dst="192.0.2.9") / UDP(sport=1, dport=2)
    one, two = tmp_path / "one.pcapng", tmp_path / "=two\n.pcap"
    with PcapngWriter(one) as writer:
        writer.write(1, bytes(packet), interface=Interface(101, "tun"))
        writer.write(2, bytes(Ether() / packet), interface=Interface(1, "eth"))
        writer.write(5, bytes(packet), interface=Interface(101, "tun"))
    with PcapWriter(two, link=228) as writer:
        writer.write(3, bytes(packet))
        writer.write(4, bytes(packet))
    return [one, two]


def test_link_types_are_kept_in_one_pcapng(tmp_path: Path) -> None:
    inputs = mixed_links(tmp_path)
    run(inputs, tmp_path / "out", by=GroupBy.FLOW)
    (found,) = captures(tmp_path / "out")
    assert sorted(rows(found)) == sorted(rows(*inputs))
    assert [row[1] for row in rows(found)] == [101, 1, 228, 228, 101]
    stream = open_captures([found])
    build.read_all(stream)
    assert stream.report.files[0].interfaces == [101, 1, 228]
    names = b"one.pcapng:0", b"one.pcapng:1", b"=two\\n.pcap:0"
    assert all(found.read_bytes().count(name) == 1 for name in names)


def test_a_pcap_for_each_link_type(tmp_path: Path) -> None:
    inputs = mixed_links(tmp_path)
    run(inputs, tmp_path / "out", by=GroupBy.FLOW, form=Format.PCAP)
    assert {path.name: len(rows(path)) for path in captures(tmp_path / "out")} == {
        "flow-000001.pcap": 2, "flow-000001-linktype1.pcap": 1, "flow-000001-linktype228.pcap": 2,
    }  # fmt: skip
    assert sorted(rows(*captures(tmp_path / "out"))) == sorted(rows(*inputs))


def test_interfaces_beyond_the_bound_are_told_by_link_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(split_function.__globals__, "MAX_INTERFACES", 1)
    run(mixed_links(tmp_path), tmp_path / "out")
    (found,) = captures(tmp_path / "out")
    stream = open_captures([found])
    build.read_all(stream)
    assert stream.report.files[0].interfaces == [101, 1, 228]
    assert found.read_bytes().count(b"pcapng:") == 1


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("seconds", [0, 1])
def test_few_open_files_give_the_same(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Format, seconds: int
) -> None:
    rotation = Rotation(seconds=seconds)
    run(capture, tmp_path / "many", by=GroupBy.FLOW, form=form, rotation=rotation)
    monkeypatch.setattr(groupfiles, "MAX_OPEN", 2)
    usual, most = groupfiles.GroupFiles.write, 0

    def watched(self: groupfiles.GroupFiles, *values: Any) -> None:
        nonlocal most
        usual(self, *values)
        if Path("/proc/self/fd").is_dir():
            held = [path for path in Path("/proc/self/fd").iterdir() if ".flow-" in target(path)]
            most = max(most, len(held))

    monkeypatch.setattr(groupfiles.GroupFiles, "write", watched)
    run(capture, tmp_path / "few", by=GroupBy.FLOW, form=form, rotation=rotation)
    if Path("/proc/self/fd").is_dir():
        assert 0 < most <= 2
    many, few = (
        {path.name: path.read_bytes() for path in captures(tmp_path / name)}
        for name in ("many", "few")
    )
    assert many == few


def target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def test_the_rest_goes_into_other(capture: Path, tmp_path: Path) -> None:
    result = run(capture, tmp_path / "out", by=GroupBy.FLOW, max_files=5)
    names = [path.stem for path in captures(tmp_path / "out")]
    assert len(names) == 7 and {"no-flow", "other"} <= set(names)
    assert Counter(rows(*captures(tmp_path / "out"))) == Counter(rows(capture))
    assert "beyond the first 5" in {f.path.stem: f.label for f in result.files}["other"]


HOSTILE = [
    "../../../etc/passwd",
    "..",
    ".hidden",
    'a/b\\c:d*e?f"g<h>i|j',
    "name\nwith\tcontrols\x00\x1b[31m",
    "\u202egnp.exe",
    "x" * 5000,
    "=cmd|' /C calc'!A0",
    "UPPER.example",
    "upper.example",
    "ünïcödé.example",
    "other",
    "",
]


def test_hostile_names_become_safe_ones() -> None:
    grouping = Grouping(GroupBy.SERVER_NAME, Selection(), 100)
    frame = pl.DataFrame({"flow_id": range(1, len(HOSTILE) + 1), "tls_sni": HOSTILE})
    grouping.add(frame.cast({"flow_id": pl.Int64}))
    grouping.add(frame.cast({"flow_id": pl.Int64}).with_columns(pl.col("flow_id") + 100))
    group_of = grouping.finish()
    names = [group.name for group in grouping.groups]
    assert len(names) == len(HOSTILE) == len({name.lower() for name in names})
    for group in grouping.groups:
        assert group.name.startswith("server-name-") and len(group.name) < 100
        assert not set(group.name) & set('/\\:*?"<>|\n\t\0 ') and group.name.isascii()
        assert group.label.isprintable() and group.label.isascii() and len(group.label) < 400
    assert group_of[1 : len(HOSTILE) + 1].tolist() == list(range(len(HOSTILE)))
    assert (group_of[101:] == group_of[1 : len(HOSTILE) + 1]).all()


def test_a_subscriber_column_is_grouped_by_where_there_is_one() -> None:
    frame = pl.DataFrame(
        {"flow_id": [1, 2, 3], "subscriber": ["", "ab12", "ab12"]}, schema_overrides={}
    )
    grouping = Grouping(GroupBy.SUBSCRIBER, Selection(), 10)
    grouping.add(frame)
    assert grouping.finish().tolist() == [-1, 0, 1, 1]
    assert [group.name for group in grouping.groups] == [
        "subscriber-unattributed", "subscriber-ab12"
    ]  # fmt: skip
    with pytest.raises(VeilwatchError, match="the flows have no subscriber"):
        Grouping(GroupBy.SUBSCRIBER, Selection(), 10).add(frame.drop("subscriber"))


def test_the_index_says_what_each_file_holds(capture: Path, tmp_path: Path) -> None:
    result = run(capture, tmp_path / "out", by=GroupBy.SERVER_NAME)
    with (tmp_path / "out" / "index.csv").open(newline="") as stream:
        index = list(csv.DictReader(stream))
    assert [(row["file"], row["holds"], int(row["packets"])) for row in index] == [
        (file.path.name, file.label, file.packets) for file in result.files
    ]
    assert "server-name host3.example" in {row["holds"] for row in index}


def test_a_capture_that_changes_meanwhile_is_refused(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Grouping.finish

    def meddle(self: Grouping) -> Any:
        write(capture, mixed() + later(lookup(7000, "more.example"), 9))
        return finish(self)

    monkeypatch.setattr(Grouping, "finish", meddle)
    with pytest.raises(CaptureError, match="have changed"):
        run(capture, tmp_path / "out", by=GroupBy.FLOW)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OutputError("full")])
def test_an_interruption_leaves_whole_files_only(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    usual, count = groupfiles.GroupFiles.write, 0

    def failing(self: groupfiles.GroupFiles, *values: Any) -> None:
        nonlocal count
        count += 1
        if count == 60:
            raise error
        usual(self, *values)

    monkeypatch.setattr(groupfiles.GroupFiles, "write", failing)
    with pytest.raises(type(error)):
        run(capture, tmp_path / "plain", by=GroupBy.HOST)
    assert list((tmp_path / "plain").iterdir()) == []
    count = 0
    with pytest.raises(type(error)):
        run(capture, tmp_path / "rotated", rotation=Rotation(max_bytes=2000))
    left = list((tmp_path / "rotated").iterdir())
    assert left and all(rows(path) for path in left)
    assert not [path for path in left if path.name.startswith(".")]


def test_folder_with_files_is_refused(capture: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the folder is not empty \(name a new one\)"):
        run(capture, tmp_path)


def test_absurd_times_do_not_fit_a_pcap(tmp_path: Path) -> None:
    with PcapngWriter(tmp_path / "in.pcapng") as writer:
        writer.write(2**62 - 1, bytes(Ether() / IP() / UDP()))
    with pytest.raises(OutputError, match=r"2106 \(write pcapng\)"):
        run(tmp_path / "in.pcapng", tmp_path / "out", form=Format.PCAP)
    run(tmp_path / "in.pcapng", tmp_path / "out")
    assert [row[0] for row in rows(*captures(tmp_path / "out"))] == [2**62 - 1]


FIELDS = ("frame.time_epoch", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "ip.id", "ip.len",
          "ipv6.plen", "ipv6.hlim", "ip.ttl", "udp.srcport", "tcp.srcport",
          "tcp.seq_raw")  # fmt: skip


def innermost(path: Path) -> list[tuple[str, ...]]:
    """Fields of the innermost IP packet of each packet, as tshark sees them."""
    asked = [part for field in FIELDS for part in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-n", "-r", path, "-T", "fields", "-E", "occurrence=a", *asked],
        capture_output=True,
        text=True,
        check=True,
    )
    return [
        tuple(cell.split(",")[-1] for cell in line.split("\t")) for line in done.stdout.splitlines()
    ]


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name",
    ["gtp6_gtp_0x32-eb386b.pcap", "n3_example_2-5e6a87.pcap", "gtp7_ipv6-d1fae9.pcap",
     "spgwu_ext_header_test-65a014.pcap.gz", "gtpingtp-378246.pcap",
     "5g-roaming-hr-210af8.pcapng.gz", "gtp-u-34cd44.pcap"],
)  # fmt: skip
def test_decapsulation_agrees_with_tshark(corpus_path: Path, tmp_path: Path, name: str) -> None:
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed")
    source = corpus_path / "gtp" / name
    flows = Selection(where="gtp_depth > 0")
    seen = run(source, tmp_path / "seen", selection=flows)
    bare = run(source, tmp_path / "bare", selection=flows, decapsulate=True)
    assert seen.written == bare.written > 0
    (wrapped,), (inner,) = captures(tmp_path / "seen"), captures(tmp_path / "bare")
    for there, here in zip(innermost(wrapped), innermost(inner), strict=True):
        # The outer headers have fields that the inner ones need not have.
        told = [(a, b) for a, b in zip(there, here, strict=True) if b]
        assert len(told) >= 5 and all(a == b for a, b in told), told


@pytest.mark.corpus
@pytest.mark.slow
def test_every_gtp_capture_is_parted_without_loss(corpus_path: Path, tmp_path: Path) -> None:
    paths = sorted(
        path for path in (corpus_path / "gtp").iterdir() if path.suffix != ".csv"
    )[::6]  # fmt: skip
    for path in paths:
        folder = tmp_path / path.name
        result = run(path, folder, by=GroupBy.APPLICATION)
        assert Counter(rows(*captures(folder))) == Counter(rows(path)), path.name
        assert result.written == result.captures.packets
