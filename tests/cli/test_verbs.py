"""Every verb end to end, as a user runs it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from scapy.contrib.gtp import GTP_U_Header
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap
from typer.testing import CliRunner

from tests.cli.conftest import SCALE
from tests.cli.helpers import veilwatch, veilwatch_process, write_capture
from veilwatch.cli import demo
from veilwatch.cli.main import command_line
from veilwatch.learning.models import load_model
from veilwatch.schema.flows import FLOW_COLUMNS


def test_help_shows_every_verb_with_an_example() -> None:
    overview = veilwatch_process("--help")
    assert overview.returncode == 0
    for verb in ("demo", "inspect", "flows", "train", "evaluate", "detect", "doctor"):
        assert verb in overview.stdout
        text = veilwatch(verb, "--help")
        assert text.returncode == 0 and "Example" in text.stdout, verb
    for verb in ("show", "extract", "encapsulate", "lab"):
        assert "Example" in veilwatch("corpus", verb, "--help").stdout, verb


def test_flows_writes_one_row_a_flow_in_every_form(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "a.pcap", flows=3, datagrams=2)
    for name in ("f.parquet", "f.csv", "f.jsonl"):
        assert veilwatch("flows", capture, "-o", tmp_path / name).returncode == 0
    frame = pl.read_parquet(tmp_path / "f.parquet")
    assert frame.columns[: len(FLOW_COLUMNS)] == [column.name for column in FLOW_COLUMNS]
    assert frame.height == 5
    tcp = frame.filter(pl.col("protocol") == 6)
    assert sorted(tcp["src_port"]) == [40000, 40001, 40002]
    assert set(tcp["dst_port"]) == {443}
    assert set(tcp["fwd_packets"]) == {5} and set(tcp["bwd_packets"]) == {4}
    with (tmp_path / "f.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["src_port"] for row in rows] == [str(port) for port in frame["src_port"]]
    lines = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert [line["dst_port"] for line in lines] == frame["dst_port"].to_list()


def test_flows_reads_standard_input_and_writes_standard_output(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "a.pcap")
    result = veilwatch_process("flows", "-", "-o", "-", "--quiet", stdin=capture.read_bytes())
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1 + 5


def test_gtp_u_on_a_port_of_ones_own(tmp_path: Path) -> None:
    n3 = IP(src="172.16.0.9", dst="172.16.0.1") / UDP(sport=9000, dport=9000)
    inner = IP(src="10.1.2.3", dst="198.18.0.1") / UDP(sport=5000, dport=53)
    wrpcap(str(tmp_path / "a.pcap"), [Ether() / n3 / GTP_U_Header(teid=5) / inner])
    for arguments, inside in (((), 0), (("--gtp-port", "8000", "--gtp-port", "9000"), 1)):
        result = veilwatch("inspect", tmp_path / "a.pcap", "--json", *arguments)
        assert json.loads(result.stdout)["flows_in_tunnels"] == inside
    assert veilwatch("inspect", tmp_path / "a.pcap", "--gtp-port", "70000").returncode == 2


def test_inspect_accounts_for_every_packet(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "a.pcap")
    result = veilwatch("inspect", capture, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    statuses = {name: count for name, count in found["balance"].items() if name.isupper()}
    assert sum(statuses.values()) == found["packets"] == found["files"][0]["packets"] == 29
    assert found["flows"] == 5
    assert "read" in veilwatch("inspect", capture).stdout


def test_demo_detects_and_reports(emulation: Path) -> None:
    results = emulation / "results"
    page = (results / "report.html").read_text()
    assert "emulated" in page.lower()
    summary = json.loads((results / "summary.json").read_text())
    assert summary["emulated"] is True
    assert summary["flow_alerts"] + summary["host_alerts"] > 0
    events = [json.loads(line) for line in (results / "eve.json").read_text().splitlines()]
    assert len(events) == summary["flow_alerts"] + summary["host_alerts"]
    assert {event["event_type"] for event in events} == {"alert"}
    assert any("tunnel" in event for event in events)
    flows = pl.read_parquet(results / "flows.parquet")
    assert flows.height == summary["flows"]
    assert flows["score"].is_between(0, 1).all()
    assert flows["alert"].sum() == summary["flow_alerts"]


@pytest.mark.slow
def test_demo_compares_detectors(
    emulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the demo, on the same emulation and with its model."""
    for name in ("lab", "field", "built.json"):
        copy = shutil.copytree if (emulation / name).is_dir() else shutil.copy
        copy(emulation / name, tmp_path / name)
    trained = load_model(emulation / "model")
    monkeypatch.setattr("veilwatch.learning.training.train_model", lambda *_, **options: trained)
    monkeypatch.setattr("veilwatch.learning.models.save_model", lambda *_: None)
    monkeypatch.setattr(demo, "COMPARED", ("lightgbm", "host_window"))
    words = ["demo", "-o", str(tmp_path), "--scale", SCALE]
    result = CliRunner().invoke(command_line(words), words)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "Emulating" not in result.output
    page = (tmp_path / "comparison" / "comparison.html").read_text()
    assert "lightgbm" in page and "host_window" in page
    assert "Comparison: " in result.output and "Report: " in result.output
    assert (emulation / "results").is_dir() and not (emulation / "comparison").exists()


@pytest.mark.slow
def test_train_evaluate_detect_on_a_manifest(emulation: Path, tmp_path: Path) -> None:
    manifest = emulation / "lab" / "MANIFEST.csv"
    rows = list(csv.DictReader(manifest.open(newline="")))
    # Two variants of each family to learn from, the others to test on.
    groups = sorted({row["group"] for row in rows})
    parts = {"train": set(groups[::2]), "test": set(groups[1::2])}
    for part, chosen in parts.items():
        path = manifest.parent / f"{part}.csv"
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(row for row in rows if row["group"] in chosen)
    model, figures = tmp_path / "model", tmp_path / "figures.json"
    trained = veilwatch("train", "--corpus", manifest.parent / "train.csv", "--out", model)
    assert trained.returncode == 0, trained.stderr
    result = veilwatch(
        "evaluate",
        "--model",
        model,
        "--corpus",
        manifest.parent / "test.csv",
        "-o",
        figures,
        "-o",
        tmp_path / "figures.html",
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(figures.read_text())
    for level in ("flow", "flow_tls", "capture"):
        row = document[level]
        assert row["n_positive"] > 0 and row["n_negative"] > 0
        assert 0 <= row["roc_auc"] <= 1 and 0 <= row["average_precision"] <= 1
        assert list(row["detection_rate_at_fpr"]) == ["0.1", "0.01", "0.001"]
        assert 0 <= row["detection_rate"] <= 1 and 0 <= row["false_positive_rate"] <= 1
    assert document["emulated"] is True
    assert all({"n", "detection_rate"} <= set(row) for row in document["families"].values())
    assert "<html" in (tmp_path / "figures.html").read_text()

    again = veilwatch("evaluate", "--model", model, "--corpus", manifest.parent / "train.csv")
    assert again.returncode == 2 and "trained on every capture" in again.stderr

    capture = manifest.parent / rows[0]["file"]
    detected = veilwatch("detect", capture, "--model", model, "--out", tmp_path / "out", "--json")
    assert detected.returncode == 0, detected.stderr
    assert json.loads(detected.stdout)["packets"] > 0


def test_corpus_verbs(emulation: Path, tmp_path: Path) -> None:
    manifest = emulation / "lab" / "MANIFEST.csv"
    shown = json.loads(veilwatch("corpus", "show", manifest, "--json").stdout)
    with manifest.open() as stream:
        assert shown["captures"] == sum(1 for _ in csv.DictReader(stream))
    assert veilwatch("corpus", "extract", manifest, "--quiet").returncode == 0
    capture = write_capture(tmp_path / "a.pcap")
    wrapped = tmp_path / "n3.pcapng"
    result = veilwatch("corpus", "encapsulate", capture, "-o", wrapped)
    assert result.returncode == 0, result.stderr
    plain, inside = tmp_path / "plain.parquet", tmp_path / "inside.parquet"
    veilwatch("flows", capture, "-o", plain)
    veilwatch("flows", wrapped, "-o", inside)
    key = ["src_ip", "src_port", "dst_ip", "dst_port", "fwd_bytes", "bwd_bytes"]
    assert (
        pl.read_parquet(plain)
        .select(key)
        .sort(key)
        .equals(pl.read_parquet(inside).select(key).sort(key))
    )
    assert (pl.read_parquet(inside)["fwd_teid"] > 0).all()
