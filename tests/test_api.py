"""The public API: what other programs import."""

from __future__ import annotations

import ast
import doctest
import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import veilwatch
from tests.conftest import ROOT
from veilwatch.progress import Silent
from veilwatch.schema import features as features_module

QUICK: dict[str, Any] = {
    "folds": 2,
    "threads": 1,
    "parameters": {"num_boost_round": 8, "learning_rate": 0.3},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with emulated captures: a corpus, and a busy link."""
    folder = tmp_path_factory.mktemp("api")
    veilwatch.build_lab(folder / "lab", scale=0.05)
    veilwatch.field_capture(folder / "n3.pcapng", subscribers=6, infected=2, scale=0.1)
    key = folder / "key"  # else pseudonyms of subscribers differ from call to call
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def corpus(place: Path) -> veilwatch.Corpus:
    return veilwatch.load_corpus(place / "lab" / "MANIFEST.csv")


@pytest.fixture(scope="module")
def model(place: Path, corpus: veilwatch.Corpus) -> veilwatch.Model:
    made = veilwatch.train(corpus, families=False, **QUICK)
    veilwatch.save_model(made, place / "model")
    return made


@pytest.fixture(scope="module")
def flows(place: Path) -> pl.DataFrame:
    return veilwatch.read_flows(place / "n3.pcapng", subscriber_key_file=place / "key")


class Listener(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def run(code: str, **environment: str) -> Any:
    """Run Python in a process of its own and return what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


STATE = """
import json, os, signal, sys, warnings
def state():
    signals = [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)]
    hooks = [sys.excepthook, sys.displayhook]
    return [sys.meta_path[:], sys.path_hooks[:], sys.path[:], dict(os.environ), signals,
            warnings.filters[:], hooks, os.getcwd(), sorted(os.listdir("."))]
"""


def test_importing_changes_nothing_and_loads_nothing(tmp_path: Path) -> None:
    loaded = run(
        f"import os; os.chdir({str(tmp_path)!r}){STATE}"
        "before = state()\n"
        "import veilwatch, veilwatch.api, veilwatch.plugins\n"
        "dir(veilwatch), veilwatch.__version__, veilwatch.detect\n"
        "assert state() == before\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))",
        VEILWATCH_CACHE=str(tmp_path / "cache"),
    )
    heavy = {"numba", "numpy", "polars", "pyarrow", "pandas", "pydantic", "lightgbm", "torch"}
    assert not heavy.intersection(loaded)
    assert not (tmp_path / "cache").exists()


def test_importing_kernels_leaves_numba_and_the_disk_alone(tmp_path: Path) -> None:
    run(
        f"import os; os.chdir({str(tmp_path)!r}){STATE}"
        "import numba, polars\n"
        "settings = {k: v for k, v in vars(numba.config).items() if k.isupper()}\n"
        "before = state()\n"
        "import veilwatch.traffic.pipeline\n"
        "assert state() == before\n"
        "assert settings == {k: v for k, v in vars(numba.config).items() if k.isupper()}\n"
        "print('true')",
        VEILWATCH_CACHE=str(tmp_path / "cache"),
    )
    assert not (tmp_path / "cache").exists()


def test_names_are_the_same_for_people_and_type_checkers() -> None:
    tree = ast.parse(Path(str(veilwatch.__file__)).read_text())
    typed = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("veilwatch.")
        for alias in node.names
    }
    assert sorted(veilwatch.__all__) == sorted([*typed, "__version__"])
    elsewhere = {
        name: place for name, place in typed.items() if not place.startswith("veilwatch.api:")
    }
    assert elsewhere == veilwatch._ELSEWHERE


@pytest.mark.parametrize("name", veilwatch.__all__)
def test_every_name_can_be_used(name: str) -> None:
    found = getattr(veilwatch, name)
    assert name in dir(veilwatch)
    assert isinstance(found, str) or found.__doc__


def test_other_names_are_missing() -> None:
    assert not hasattr(veilwatch, "no_such_name")


def test_captures_are_named_in_any_way(place: Path, flows: pl.DataFrame) -> None:
    file = place / "n3.pcapng"
    for named in (str(file), [file], (str(file),)):
        assert veilwatch.read_flows(named, subscriber_key_file=place / "key").equals(flows)
    lab = place / "lab" / "benign"
    whole = veilwatch.read_flows(lab)
    assert veilwatch.read_flows(sorted(lab.rglob("*.pcapng"))).height == whole.height
    assert whole["source"].n_unique() > 10


def test_tables_come_one_by_one(place: Path, flows: pl.DataFrame) -> None:
    key = str(place / "key")
    tables = list(veilwatch.iter_flows(place / "n3.pcapng", subscriber_key_file=key))
    assert pl.concat(tables).equals(flows)


def test_flows_are_cut_as_asked(place: Path, flows: pl.DataFrame) -> None:
    file = place / "n3.pcapng"
    assert veilwatch.read_flows(file, idle_timeout_s=0.5).height > flows.height
    other = veilwatch.read_flows(file)["subscriber"]  # by a key that lasts one call
    assert set(other).isdisjoint(set(flows["subscriber"]) - {""})
    with pytest.raises(veilwatch.VeilwatchError, match="idle_timeout_s"):
        veilwatch.read_flows(file, idle_timeout_s=-1.0)
    with pytest.raises(TypeError, match="linger_s"):
        veilwatch.read_flows(file, linger_s=1.0)  # type: ignore[call-arg]


def test_a_cut_capture_warns_or_tells_who_listens(place: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcapng"
    data = (place / "n3.pcapng").read_bytes()
    cut.write_bytes(data[: len(data) // 2 + 1])
    with pytest.warns(veilwatch.VeilwatchWarning, match="cut"):
        flows = veilwatch.read_flows(cut)
    assert flows.height
    listener = Listener()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        veilwatch.read_flows(cut, progress=listener)
    assert any("cut" in note for note in listener.notes)
    with pytest.raises(veilwatch.CaptureError, match="no-such"):
        veilwatch.read_flows(tmp_path / "no-such.pcap")


def test_features_in_every_form(flows: pl.DataFrame) -> None:
    found = veilwatch.compute_features(flows, "statistics", shortcuts=True)
    names = found.schema.names
    assert "src_port" in names  # a key as well: it stands there once
    table = found.to_polars()
    assert table.columns == [c for c in found.keys.columns if c not in names] + names
    assert table["flow_id"].to_list() == flows["flow_id"].to_list()
    np.testing.assert_array_equal(table.select(names).to_numpy(), found.to_numpy())
    pandas = found.to_pandas()
    assert list(pandas.columns) == table.columns
    np.testing.assert_array_equal(pandas[names].to_numpy(), found.to_numpy())


def test_without_pandas_there_is_advice(
    flows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "find_spec", lambda name: None)
    with pytest.raises(veilwatch.VeilwatchError, match=r"pandas is not installed .*to_polars"):
        veilwatch.compute_features(flows).to_pandas()


def test_features_of_some_flows(flows: pl.DataFrame) -> None:
    some = flows.filter(pl.col("protocol") == 6)
    whole = veilwatch.compute_features(flows).to_polars()
    part = veilwatch.compute_features(some.with_columns(mine=1)).to_polars()
    assert part.equals(whole.filter(pl.col("flow_id").is_in(some["flow_id"].implode())))
    with pytest.raises(veilwatch.VeilwatchError, match="column protocol is missing"):
        veilwatch.compute_features(flows.drop("protocol"))
    windows = veilwatch.compute_features(flows, "host_window")
    assert 0 < len(windows) < flows.height


def test_detection(place: Path, model: veilwatch.Model, tmp_path: Path) -> None:
    capture, output, key = place / "n3.pcapng", tmp_path / "results", place / "key"
    found = veilwatch.detect(capture, model, output=output, subscriber_key_file=key)
    read = veilwatch.detect(str(capture), str(place / "model"), subscriber_key_file=key)
    assert read.flows.equals(found.flows) and read.hosts.equals(found.hosts)
    assert repr(read.alerts) == repr(found.alerts)  # NaN is not equal to itself
    assert found.hosts.height == 6 and found.flows["score"].is_between(0, 1).all()
    assert found.emulated and found.origin.emulated
    names = {path.name for path in output.iterdir()}
    assert names == {"eve.json", "flows.parquet", "report.html", "summary.json"}
    assert json.loads((output / "summary.json").read_text()) == found.summary()
    written = pl.read_parquet(output / "flows.parquet")
    assert written.sort("flow_id")["score"].equals(found.flows.sort("flow_id")["score"])
    page = found.report(tmp_path / "page.html").read_text()
    assert page == (output / "report.html").read_text()
    assert "<html" in page
    with pytest.raises(veilwatch.ModelError, match="no model here"):
        veilwatch.detect(capture, tmp_path / "none")


def test_a_model_needs_a_manifest(corpus: veilwatch.Corpus, model: veilwatch.Model) -> None:
    assert corpus.manifest is not None
    assert model.manifest.name == "lightgbm on MANIFEST.csv"
    with pytest.raises(veilwatch.TrainingError, match="manifest"):
        veilwatch.train(replace(corpus, manifest=None))
    with pytest.raises(veilwatch.TrainingError, match="unknown split 'flow'"):
        veilwatch.train(corpus, split="flow")  # type: ignore[arg-type]
    with pytest.raises(veilwatch.TrainingError, match="unknown detector 'none'"):
        veilwatch.train(corpus, detector="none")


def test_a_cut_capture_of_a_corpus_warns(place: Path, tmp_path: Path) -> None:
    lines = (place / "lab" / "MANIFEST.csv").read_text().splitlines()
    name = lines[1].partition(",")[0]
    data = (place / "lab" / name).read_bytes()
    target = tmp_path / name
    target.parent.mkdir(parents=True)
    target.write_bytes(data[: len(data) - 7])
    (tmp_path / "MANIFEST.csv").write_text("\n".join(lines[:2]) + "\n")
    with pytest.warns(veilwatch.VeilwatchWarning, match=re.escape(Path(name).name)):
        found = veilwatch.load_corpus(tmp_path / "MANIFEST.csv")
    assert list(found.faults) == [name]


def test_evaluation(corpus: veilwatch.Corpus, model: veilwatch.Model, tmp_path: Path) -> None:
    found = veilwatch.evaluate(corpus, split="group", **QUICK)
    assert found.emulated and found.model == "lightgbm, group held out"
    assert 0 <= found.figures["flow"]["roc_auc"] <= 1
    assert json.loads(found.report(tmp_path / "a.json").read_text()) == found.document()
    assert "<html" in found.report(str(tmp_path / "a.html")).read_text()
    with pytest.raises(veilwatch.OutputError, match=r"cannot write \.txt"):
        found.report(tmp_path / "a.txt")
    undecided: list[dict[str, Any]] = [{}, {"model": model, "split": "group"}]
    for arguments in undecided:
        with pytest.raises(veilwatch.TrainingError, match="either a model or a split"):
            veilwatch.evaluate(corpus, **arguments)
    with pytest.raises(veilwatch.TrainingError, match="unknown split 'day'"):
        veilwatch.evaluate(corpus, split="day")  # type: ignore[arg-type]
    # The model learned from all of these captures, and none of them counts.
    with pytest.raises(veilwatch.TrainingError, match="trained on every capture"):
        veilwatch.evaluate(corpus, model)


def test_comparison(place: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "detectors": ["host_window"],
        "splits": ["group"],
        "folds": 2,
        "changed": 0,
    }
    found = veilwatch.compare(place / "lab" / "MANIFEST.csv", tmp_path / "out", **asked)
    assert [detector.name for detector in found.detectors] == ["host_window"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"comparison.json", "comparison.html", "figures.csv", "tables.tex", "folds"} <= names
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "folds").glob("*.npz")}
    assert kept
    again = veilwatch.compare(place / "lab" / "MANIFEST.csv", str(tmp_path / "out"), **asked)
    assert again.detectors == found.detectors
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_the_page_does_what_it_says(
    place: Path, model: veilwatch.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples of docs/api.md, in a folder that holds what they name."""
    monkeypatch.chdir(place)
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*$", "", page, flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(text, {}, "docs/api.md", "docs/api.md", 0)
    assert len(test.examples) > 15
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    result = runner.run(test, out=said.append)
    assert result.failed == 0, "".join(said)
