"""Flow tables come back from every file form as they went in."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from tests.report import factory
from veilwatch.errors import OutputError
from veilwatch.export import flow_writer as parquet
from veilwatch.export.flow_writer import FlowWriter, write_flows
from veilwatch.schema.flows import SEQUENCE_LENGTH
from veilwatch.schema.forms import known_frame


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    flows = factory.scene(hostile=True, benign_hosts=3, infected_hosts=2).scores.flows
    height = flows.height
    sizes = np.random.default_rng(1).integers(-1500, 1500, (height, SEQUENCE_LENGTH))
    return flows.with_columns(
        seq_size=pl.Series(sizes.tolist(), dtype=pl.Array(pl.Int16, SEQUENCE_LENGTH)),
        tls_ciphers=pl.Series([[4865, 4866][: i % 3] for i in range(height)],
                              dtype=pl.List(pl.UInt16)),
        fwd_gap_min=pl.Series([float("nan"), 0.5] * (height // 2), dtype=pl.Float32),
        cert_matches_sni=pl.Series([None, True] * (height // 2), dtype=pl.Boolean),
    )  # fmt: skip


def batches(frame: pl.DataFrame, path: Path) -> None:
    with FlowWriter(path) as writer:
        for start in range(0, frame.height, 37):
            writer.write(frame.slice(start, 37))


def test_parquet_in_batches_equals_the_frame(
    frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", 100)
    path = tmp_path / "flows.parquet"
    batches(frame, path)
    assert_frame_equal(pl.read_parquet(path), known_frame(frame))
    file = pq.ParquetFile(path)
    assert file.num_row_groups > 1 and file.metadata.num_rows == frame.height


def test_csv_in_batches_equals_the_frame_read_by_the_csv_module(
    frame: pl.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "flows.csv"
    batches(frame, path)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == frame.height and list(rows[0]) == frame.columns
    for row, flow in zip(rows, frame.iter_rows(named=True), strict=True):
        assert row["tls_sni"] == flow["tls_sni"]
        assert row["seq_size"] == " ".join(str(size) for size in flow["seq_size"])
        assert row["tls_ciphers"] == " ".join(str(cipher) for cipher in flow["tls_ciphers"])
        assert row["tls_alpn"] == " ".join(flow["tls_alpn"])
        assert int(row["flow_id"]) == flow["flow_id"]


def test_json_lines_in_batches_equal_the_frame(frame: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "flows.JSONL"
    batches(frame, path)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == "" and len(lines) == frame.height
    for text, flow in zip(lines, frame.iter_rows(named=True), strict=True):
        row = json.loads(text)
        assert row["tls_sni"] == flow["tls_sni"] and row["tls_alpn"] == flow["tls_alpn"]
        assert row["seq_size"] == flow["seq_size"]
        assert row["cert_matches_sni"] == flow["cert_matches_sni"]
        assert "NaN" not in text


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_an_empty_table_keeps_its_columns_where_the_form_can(
    frame: pl.DataFrame, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"flows{suffix}"
    write_flows(path, frame.clear())
    if suffix == ".parquet":
        assert pl.read_parquet(path).schema == frame.schema
    elif suffix == ".csv":
        assert path.read_text().strip().split(",") == frame.columns
    else:
        assert path.read_text() == ""


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_no_batch_at_all_is_still_a_valid_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"flows{suffix}"
    with FlowWriter(path):
        pass
    assert path.is_file()
    if suffix == ".parquet":
        assert pl.read_parquet(path).height == 0


@pytest.mark.parametrize("name", ["flows.xlsx", "flows", "flows.parquet.gz"])
def test_an_unknown_suffix_names_the_known_ones(
    frame: pl.DataFrame, tmp_path: Path, name: str
) -> None:
    with pytest.raises(OutputError, match=r"\.parquet, \.csv, \.jsonl"):
        write_flows(tmp_path / name, frame)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_standard_output(
    frame: pl.DataFrame, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, suffix: str
) -> None:
    write_flows(Path("-"), frame, suffix=suffix)
    write_flows(tmp_path / f"f{suffix}", frame)
    assert capfdbinary.readouterr().out == (tmp_path / f"f{suffix}").read_bytes()


def test_parquet_does_not_go_to_standard_output(frame: pl.DataFrame) -> None:
    with pytest.raises(OutputError, match=r"known: \.csv, \.jsonl"):
        write_flows(Path("-"), frame, suffix=".parquet")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_a_fault_leaves_the_old_file_and_nothing_else(
    frame: pl.DataFrame, tmp_path: Path, suffix: str, fault: BaseException
) -> None:
    path = tmp_path / f"flows{suffix}"
    path.write_text("old")
    expected = OutputError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(expected), FlowWriter(path) as writer:
        writer.write(frame)
        raise fault
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_error(
    frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    from contextlib import contextmanager

    from veilwatch import files

    @contextmanager
    def failing(path: Path) -> Iterator[Full]:
        with files.replacing(path):
            yield Full()

    monkeypatch.setattr(parquet, "replacing", failing)
    for suffix in parquet.ENCODERS:
        with pytest.raises(OutputError, match="No space left"):
            write_flows(tmp_path / f"f{suffix}", frame)
    assert list(tmp_path.iterdir()) == []


def test_batches_with_other_columns_are_refused(frame: pl.DataFrame, tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="other columns"),
        FlowWriter(tmp_path / "f.csv") as writer,
    ):
        writer.write(frame)
        writer.write(frame.drop("score"))
    assert list(tmp_path.iterdir()) == []
