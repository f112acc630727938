"""conn.log as Zeek writes it: its own logs are the oracle."""

from __future__ import annotations

import csv
import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.report.factory import flow_frame
from veilwatch.export import zeek
from veilwatch.export.flow_writer import FlowWriter, write_flows
from veilwatch.export.zeek import conn_log
from veilwatch.export.zeek_state import conn_state, histories
from veilwatch.export.zeek_text import json_text, tab_text
from veilwatch.schema.flows import SEQUENCE_LENGTH, TcpState
from veilwatch.traffic.pipeline import FlowReader

STANDARD = [
    *("ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "service"),
    *("duration", "orig_bytes", "resp_bytes", "conn_state", "local_orig", "local_resp"),
    *("missed_bytes", "history", "orig_pkts", "orig_ip_bytes", "resp_pkts", "resp_ip_bytes"),
    *("tunnel_parents", "ip_proto"),
]
"""What Zeek 7.1 writes, in its order."""

Line = dict[str, str]


def read_log(path: Path) -> list[Line]:
    """The lines of a log by its own header, as zeek-cut does."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    names: list[str] = []
    lines = []
    for line in text.rstrip("\n").split("\n"):
        if line.startswith("#fields\t"):
            names = line.split("\t")[1:]
        elif not line.startswith("#"):
            lines.append(dict(zip(names, line.split("\t"), strict=True)))
    return lines


def log_of(capture: Path, folder: Path) -> list[Line]:
    with FlowReader([capture]) as reader, FlowWriter(folder / "conn.log") as writer:
        for table in reader:
            writer.write(table.frame)
    return read_log(folder / "conn.log")


# ---- against logs that Zeek wrote of the same captures ----

COMPARED = ["id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "service", "duration",
            "orig_bytes", "resp_bytes", "conn_state", "local_orig", "local_resp", "history",
            "orig_pkts", "orig_ip_bytes", "resp_pkts", "resp_ip_bytes", "ip_proto"]  # fmt: skip

FRAGMENTS = "Zeek puts outer fragments together; we count each first fragment"
LATE_LETTERS = "the FINs come after the packets that are kept one by one; no letter for a gap"

CAPTURES: list[tuple[str, str, int, dict[str, str]]] = [
    ("opt_header", "gtp6_gtp_0x32-eb386b.pcap", 1, {}),
    ("inner_ipv6", "gtp7_ipv6-d1fae9.pcap", 2, {}),
    ("not_user_plane_data", "gtp10_not_0xff-df7245.pcap", 2, {}),
    ("outer_ip_frag", "gtp1_gn_normal_incl_fragmentation-3ff8b7.pcap.gz", 1,
     {"duration": FRAGMENTS, "resp_pkts": FRAGMENTS, "resp_ip_bytes": FRAGMENTS,
      "history": LATE_LETTERS}),
    ("inner_teredo", "gtp8_teredo-9836c1.pcap", 2, {}),
]  # fmt: skip
"""Zeek's test, its capture, flows that both know, and fields that differ with the reason."""


@pytest.mark.corpus
@pytest.mark.parametrize(("test", "name", "common", "reasons"), CAPTURES, ids=lambda v: str(v)[:20])
def test_zeek_says_the_same_of_the_same_capture(
    corpus_path: Path, tmp_path: Path, test: str, name: str, common: int, reasons: dict[str, str]
) -> None:
    folder = corpus_path / "ground_truth" / "zeek-gtp"
    theirs = read_log(folder / f"core.tunnels.gtp.{test}__conn.log")
    ours = log_of(corpus_path / "gtp" / name, tmp_path)
    known = {_key(line): line for line in ours}
    assert len(known) == len(ours)
    # What we lack is the outside of tunnels.
    assert {line["service"] for line in theirs if _key(line) not in known} <= {"gtpv1", "teredo"}
    both = [(line, known[_key(line)]) for line in theirs if _key(line) in known]
    assert len(both) == common
    differing = {field for zeek, mine in both for field in COMPARED if zeek[field] != mine[field]}
    assert differing == set(reasons)


def _key(line: Line) -> tuple[str, ...]:
    return tuple(line[name] for name in COMPARED[:5])


# ---- against the states that Zeek gave to thousands of other connections ----

DISAGREEMENTS = {
    ("RSTOS0", "RSTO"): 3,  # the SYN came from the responder: our bit does not say from whom
    ("SF", "RSTO"): 2,  # both sent FIN, but the RST came before the second: we know no order
    ("RSTR", "REJ"): 1,  # both reset a connection without data, of which no SYN was seen
}
"""(Ours, Zeek's): connections out of 12,002."""


def flows_of(lines: list[Line]) -> pl.DataFrame:
    """Flow rows that show what the letters of Zeek's histories say, and no more."""
    columns: dict[str, list[int]] = {
        name: []
        for name in (
            *("protocol", "tcp_state", "fwd_packets", "bwd_packets", "fwd_payload_packets"),
            *("bwd_payload_packets", "fwd_syn", "bwd_syn", "fwd_fin", "bwd_fin", "fwd_rst"),
            "bwd_rst",
        )
    }
    for line in lines:
        letters = set(line["history"])
        bits = 0
        for letter, bit in (
            *(("S", TcpState.SYN), ("s", TcpState.SYN), ("h", TcpState.SYN_ACK)),
            *(("F", TcpState.FIN_FWD), ("f", TcpState.FIN_BWD), ("R", TcpState.RST)),
            *(("r", TcpState.RST),),
        ):
            bits |= bit if letter in letters else 0
        columns["protocol"].append({"tcp": 6, "udp": 17}.get(line["proto"], 1))
        columns["tcp_state"].append(bits if line["proto"] == "tcp" else 0)
        columns["fwd_packets"].append(int(line["orig_pkts"]))
        columns["bwd_packets"].append(int(line["resp_pkts"]))
        for prefix, wanted in (("fwd", str.upper), ("bwd", str.lower)):
            columns[f"{prefix}_payload_packets"].append(wanted("d") in letters)
            columns[f"{prefix}_syn"].append(wanted("s") in letters or wanted("h") in letters)
            columns[f"{prefix}_fin"].append(wanted("f") in letters)
            columns[f"{prefix}_rst"].append(wanted("r") in letters)
    return flow_frame(len(lines), **columns)


@pytest.mark.corpus
def test_states_are_those_that_zeek_gave(corpus_path: Path) -> None:
    folder = corpus_path / "ground_truth" / "stratosphere-labelled-zeek"
    lines = [line for path in sorted(folder.glob("*conn.log*")) for line in read_log(path)]
    given = [line["conn_state"] for line in lines]
    found = flows_of(lines).select(conn_state().alias("state"))["state"].to_list()
    different = Counter(pair for pair in zip(found, given, strict=True) if pair[0] != pair[1])
    assert len(lines) == 12_002
    assert different == DISAGREEMENTS


# ---- letters ----


def history(packets: list[tuple[int, int, int]], **columns: Any) -> str | None:
    """History of a TCP flow by (size, payload, flags) of its packets, negative size backwards."""
    padded = packets + [(0, 0, 0)] * (SEQUENCE_LENGTH - len(packets))
    arrays = {
        f"seq_{name}": pl.Series(
            [[packet[k] for packet in padded]], dtype=pl.Array(kind, SEQUENCE_LENGTH)
        )
        for k, (name, kind) in enumerate(
            (("size", pl.Int16), ("payload", pl.UInt16), ("flags", pl.UInt8))
        )
    }
    frame = flow_frame(1, **{"protocol": [6], **{k: [v] for k, v in columns.items()}})
    found: str | None = histories(frame.with_columns(**arrays))[0]
    return found


S, A, F, R, P = 2, 16, 1, 4, 8
OPEN = [(60, 0, S), (-60, 0, S | A), (52, 0, A)]


@pytest.mark.parametrize(
    ("packets", "columns", "expected"),
    [
        (OPEN, {}, "ShA"),
        ([*OPEN, (152, 100, P | A), (-52, 0, A), (-99, 47, P | A), (52, 0, A | F),
          (-52, 0, A | F), (52, 0, A)], {}, "ShADadFf"),
        ([(60, 0, S), (-40, 0, R | A)], {}, "Sr"),
        ([(60, 0, S), (60, 0, S), (40, 0, R)], {}, "SR"),
        ([(-60, 0, S | A), (52, 0, A)], {}, "^hA"),
        ([(-60, 0, S | A), (52, 0, A)], {"flow_id": 5, "parent_id": 1}, "hA"),
        ([(40, 0, S | F)], {}, "Q"),
        ([(40, 0, F | R)], {}, "I"),
        ([(-40, 0, A | F), (50, 10, A)], {}, "^fD"),
        (OPEN, {"fwd_retransmissions": 2, "bwd_zero_windows": 1}, "ShAwT"),
        ([*OPEN, *[(152, 100, A)] * 29], {"fwd_fin": 1, "bwd_fin": 1, "bwd_payload_packets": 1,
                                         "bwd_rst": 1}, "ShADdFfr"),
        ([(60, 20, 0), (-60, 0, 0)], {"protocol": 17}, "Dd"),
        ([(60, 20, 0)], {"protocol": 1}, None),
        ([(60, 20, 0)], {"protocol": 132}, None),
    ],
)  # fmt: skip
def test_histories(
    packets: list[tuple[int, int, int]], columns: dict[str, int], expected: str | None
) -> None:
    assert history(packets, **columns) == expected


# ---- the files ----


@pytest.fixture
def flows() -> pl.DataFrame:
    names = ["www.example", "", "-", "(empty)", "tab\tline\nback\\slash", "ünï\u202e", "a,b"]
    height = len(names)
    return flow_frame(
        height,
        flow_id=range(1, height + 1),
        parent_id=range(1, height + 1),
        tls_sni=names,
        src_ip=["10.0.0.1", "2001:db8::1", "8.8.8.8", "224.0.0.1", "100.64.0.1", "ff02::1",
                "2a00::1"],
        dst_ip=["203.0.113.5"] * height,
        src_port=[1] * height,
        dst_port=[443] * height,
        protocol=[6, 6, 17, 1, 58, 132, 6],
        icmp_type=[0, 0, 0, 8, 3, 0, 0],
        icmp_code=[0, 0, 0, 0, 1, 0, 0],
        service=["tls", "", "dns", "", "", "", "dcerpc"],
        first_ns=[1_700_000_000_000_001_999] * height,
        last_ns=[1_700_000_000_000_001_999] + [1_700_000_001_500_003_000] * (height - 1),
        fwd_packets=[1] * height,
        fwd_stream_bytes=[7] * height,
        fwd_vlan=[0, 5, 0, 0, 0, 0, 0],
        gtp_depth=[0, 0, 1, 1, 0, 0, 0],
        fwd_teid=[0, 0, 0, 77, 0, 0, 0],
        outer_src_ip=["", "", "10.9.0.1", "10.9.0.2", "", "", ""],
        outer_dst_ip=["", "", "10.9.0.2", "10.9.0.1", "", "", ""],
    )  # fmt: skip


def test_tab_separated_lines(flows: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "conn.log"
    with FlowWriter(path) as writer:
        writer.write(flows[:3])
        writer.write(flows[3:])
    text = path.read_text()
    header, footer = text.splitlines()[:8], text.splitlines()[-1]
    assert header[:5] == [
        "#separator \\x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-",
        "#path\tconn",
    ]  # fmt: skip
    assert re.fullmatch(r"#open\t\d{4}(-\d\d){5}", header[5])
    assert re.fullmatch(r"#close\t\d{4}(-\d\d){5}", footer)
    fields, types = header[6].split("\t")[1:], header[7].split("\t")[1:]
    assert fields[:22] == STANDARD and len(types) == len(fields)
    assert text.count("#fields") == 1 and len(text.splitlines()) == 9 + flows.height
    lines = read_log(path)
    first = lines[0]
    assert first["ts"] == "1700000000.000001" and first["duration"] == "-"
    assert first["orig_bytes"] == "-" and first["orig_pkts"] == "1"
    assert lines[1]["duration"] == "1.500002" and lines[1]["orig_bytes"] == "7"
    assert [line["proto"] for line in lines] == [
        "tcp", "tcp", "udp", "icmp", "icmp", "unknown_transport", "tcp"
    ]  # fmt: skip
    assert [line["service"] for line in lines] == ["ssl", "-", "dns", "-", "-", "-", "dce_rpc"]
    assert [line["local_orig"] for line in lines] == list("TTFFTFF")
    assert (lines[3]["id.orig_p"], lines[3]["id.resp_p"]) == ("8", "0")
    assert (lines[4]["id.orig_p"], lines[4]["id.resp_p"]) == ("3", "1")
    assert [line["missed_bytes"] for line in lines] == ["-"] * flows.height
    assert [line["vlan"] for line in lines] == ["-", "5", "-", "-", "-", "-", "-"]
    assert [line["orig_teid"] for line in lines] == ["-", "-", "0", "77", "-", "-", "-"]
    assert [line["server_name"] for line in lines] == [
        "www.example", "-", "\\x2d", "\\x28empty)", "tab\\x09line\\x0aback\\x5cslash",
        "\\xc3\\xbcn\\xc3\\xaf\\xe2\\x80\\xae", "a,b",
    ]  # fmt: skip


def test_identifiers_depend_on_the_flow_alone(flows: pl.DataFrame) -> None:
    lines = conn_log(flows)
    uids = lines["uid"].to_list()
    assert len(set(uids)) == len(uids)
    assert all(re.fullmatch(r"C[0-9A-Za-z]{10,18}", uid) for uid in uids)
    moved = flows.with_columns(flow_id=pl.col("flow_id") + 50, source=pl.lit(3, pl.UInt32))
    assert conn_log(moved.reverse())["uid"].reverse().to_list() == uids
    later = flows.with_columns(pl.col("first_ns") + 1)
    assert not set(conn_log(later)["uid"]) & set(uids)
    # One pair of tunnel end points is one tunnel, whoever speaks first.
    parents = lines["tunnel_parents"].to_list()
    assert parents[2] == parents[3] and len(parents[2]) == 1
    assert [parent for k, parent in enumerate(parents) if k not in (2, 3)] == [None] * 5


def test_json_lines(flows: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "conn.log.json"
    write_flows(path, flows)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == flows.height
    assert rows[0]["ts"] == 1700000000.000001 and "duration" not in rows[0]
    assert rows[1]["duration"] == 1.500002 and rows[1]["local_orig"] is True
    assert rows[3]["tunnel_parents"] == rows[2]["tunnel_parents"]
    assert [row.get("server_name") for row in rows] == [
        name or None for name in flows["tls_sni"].to_list()
    ]
    assert all(None not in row.values() for row in rows)
    known = set(conn_log(flows).columns)
    assert all(set(row) <= known for row in rows)


def test_the_subscriber_is_the_last_field(flows: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "conn.log"
    write_flows(path, flows.with_columns(subscriber=pl.lit("ab12")))
    assert [line["subscriber"] for line in read_log(path)] == ["ab12"] * flows.height
    assert list(read_log(path)[0])[-1] == "subscriber"


@pytest.mark.parametrize("frames", [0, 1])
def test_a_log_without_flows_is_still_one(flows: pl.DataFrame, tmp_path: Path, frames: int) -> None:
    with FlowWriter(tmp_path / "conn.log") as writer:
        for _ in range(frames):
            writer.write(flows.clear())
    lines = (tmp_path / "conn.log").read_text().splitlines()
    assert [line.partition("\t")[0] for line in lines] == [
        "#separator \\x09", "#set_separator", "#empty_field", "#unset_field", "#path", "#open",
        "#fields", "#types", "#close",
    ]  # fmt: skip


def test_polars_and_csv_load_it(flows: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "conn.log"
    write_flows(path, flows)
    names = next(
        line.split("\t")[1:] for line in path.read_text().splitlines() if line[:7] == "#fields"
    )
    frame = pl.read_csv(
        path, separator="\t", comment_prefix="#", has_header=False, new_columns=names,
        null_values="-", quote_char=None,
    )  # fmt: skip
    assert frame.height == flows.height
    assert frame["ts"].dtype == pl.Float64 and frame["orig_pkts"].to_list() == [1] * flows.height
    with path.open(newline="") as stream:
        lines = list(csv.reader((x for x in stream if x[0] != "#"), delimiter="\t", quoting=3))
    assert [len(line) for line in lines] == [len(names)] * flows.height


NAMES = ["#home", "a#b", "NA", "null", '"quoted', "caf\\195\\169.example", "\\...", "-", "a b"]


def named(flows: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """A flow a name; all else as in the first."""
    return pl.concat([flows.head(1)] * len(names)).with_columns(tls_sni=pl.Series(names))


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")
def test_the_page_s_loader_keeps_every_column(flows: pl.DataFrame, tmp_path: Path) -> None:
    """The snippet as it is printed, on names that look like comments, quotes or missing values."""
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import io\nimport pandas\n.*?)```", page, re.DOTALL)
    write_flows(tmp_path / "conn.log", named(flows, NAMES))
    code += "print(frame[['server_name', 'flow_id', 'orig_bytes', 'subscriber']].to_json())"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    columns = {name: list(values.values()) for name, values in json.loads(run.stdout).items()}
    assert columns["server_name"] == [
        "#home", "a#b", "NA", "null", '"quoted', "café.example", "\\x5c...", "\\x2d", "a b",
    ]  # fmt: skip
    assert columns["flow_id"] == [flows["flow_id"][0]] * len(NAMES)
    assert columns["orig_bytes"] == columns["subscriber"] == [None] * len(NAMES)


@pytest.mark.parametrize(
    ("stored", "tabs", "document"),
    [
        ("caf\\195\\169", "café", "café"),  # once escaped by us, and not again
        ("\\228\\184\\173\\230\\150\\135", "中文", "中文"),
        ("\\195\\177\\192\\129", "\\xc3\\xb1\\xc0\\x81", "\\xc3\\xb1\\xc0\\x81"),
        ("\\255x", "\\xffx", "\\xffx"),  # Latin-1
        ("a\\092\\195\\169", "a\\x5cé", "a\\é"),
        ("a\\009b\\001", "a\\x09b\\x01", "a\\x09b\\x01"),
        ("a\\009b", "a\\x09b", "a\tb"),
        ("\\194\\133", "\\xc2\\x85", "\\xc2\\x85"),  # U+0085, a control character
        ("\\238\\128\\128", "\\xee\\x80\\x80", "\\xee\\x80\\x80"),  # private use
        ("\\239\\191\\189", "\\xef\\xbf\\xbd", "\\xef\\xbf\\xbd"),  # U+FFFD
        ("\\226\\128\\168", "\\xe2\\x80\\xa8", "\u2028"),
        ("\\999", "\\x5c999", "\\999"),  # no escape of ours
        ("\\127", "\\x7f", "\\x7f"),
    ],
)
def test_text_is_escaped_once_and_as_zeek_does(stored: str, tabs: str, document: str) -> None:
    assert tab_text(stored) == tabs
    assert json_text(stored) == document


def test_non_ascii_names_in_both_forms(flows: pl.DataFrame, tmp_path: Path) -> None:
    table = named(flows, ["caf\\195\\169.example"])
    write_flows(tmp_path / "conn.log", table)
    write_flows(tmp_path / "conn.log.json", table)
    assert [line["server_name"] for line in read_log(tmp_path / "conn.log")] == ["café.example"]
    assert json.loads((tmp_path / "conn.log.json").read_text())["server_name"] == "café.example"


def test_every_field_has_a_type_and_is_documented(flows: pl.DataFrame) -> None:
    assert conn_log(flows).columns == list(zeek.FIELDS)
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    for field in zeek.FIELDS:
        assert f"| `{field}` |" in page
    assert np.all([letter in page for letter in ("`^`", "`q`", "`t`")])
