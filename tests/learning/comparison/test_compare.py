"""A whole comparison: what it holds, that it goes on where it was stopped, what it leaves out."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.known import known
from tests.learning.comparison.factory import capture_corpus
from tests.report.test_html import check_inert
from veilwatch.errors import TrainingError
from veilwatch.learning.comparison import CompareOptions, Comparison, compare
from veilwatch.learning.comparison.perturb import PERTURBATIONS
from veilwatch.learning.comparison.prevalence import precision_at
from veilwatch.learning.comparison.tables import (
    _COLUMNS,
    false_alarms_csv,
    families_csv,
    figures_csv,
    latex,
    robustness_csv,
)
from veilwatch.learning.detectors import DETECTORS, DetectorSettings, TrainingSet
from veilwatch.learning.detectors.base import Scores
from veilwatch.learning.detectors.host import HOST_PARAMETERS
from veilwatch.learning.detectors.lightgbm import PARAMETERS
from veilwatch.learning.features import FEATURE_SETS
from veilwatch.progress import SILENT, Progress
from veilwatch.report.comparison.page import render_comparison
from veilwatch.schema.features import FeatureFrame, FeatureSchema, Unit

SPLITS = ("publisher", "source", "group", "family", "time", "flow")


class Mean:
    """Scores a unit by how near its ranks are to those of the classes' means; any unit will do."""

    name: ClassVar[str] = "mean"
    unit: ClassVar[Unit] = "flow"
    feature_sets: ClassVar[Sequence[str]] = ("statistics",)
    fits: ClassVar[int] = 0

    def fit(
        self, training: TrainingSet, settings: DetectorSettings, progress: Progress = SILENT
    ) -> None:
        training.require_both_classes()
        type(self).fits += 1
        values = np.nan_to_num(training.features.values, nan=-1.0)
        self.scale = values.std(axis=0) + 1e-6
        self.means = [
            (values[training.malicious == side] / self.scale).mean(axis=0) for side in (0, 1)
        ]

    def predict_proba(self, features: FeatureFrame) -> Scores:
        values = np.nan_to_num(features.values, nan=-1.0) / self.scale
        good, bad = (((values - mean) ** 2).sum(axis=1) for mean in self.means)
        return np.asarray(good / (good + bad + 1e-12), np.float64)

    def explain(self, features: FeatureFrame) -> np.ndarray:
        return np.zeros(features.values.shape)

    def save(self, folder: Path) -> list[str]:
        (folder / "mean.txt").write_text(" ".join(map(str, np.concatenate(self.means))))
        return ["mean.txt"]

    @classmethod
    def load(cls, folder: Path, schema: FeatureSchema) -> Mean:
        raise NotImplementedError


class Windows(Mean):
    """The same on host windows."""

    name = "windows"
    unit = "host_window"
    feature_sets = ("host_window",)


class Words(Mean):
    """The same on whole captures."""

    name = "words"
    unit = "capture"
    feature_sets = ("header_words",)


class Unfit(Mean):
    """Lacks what it would need."""

    name = "unfit"

    def fit(self, *arguments: Any) -> None:
        raise TrainingError("no framework here", hint="pip install '.[train]'")


FAKES = {kind.name: kind for kind in (Mean, Windows, Words, Unfit)}


FEW_TREES = {"num_boost_round": 4, "learning_rate": 0.4}
"""What channels, host windows and decisions are learned with here: enough to tell something."""


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for parameters in (PARAMETERS, HOST_PARAMETERS):
        for key, value in FEW_TREES.items():
            monkeypatch.setitem(parameters, key, value)
    for name, kind in FAKES.items():
        kind.fits = 0
        monkeypatch.setitem(DETECTORS, name, kind)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return capture_corpus(tmp_path_factory.mktemp("corpus"), captures=32, flows=4)


OPTIONS = CompareOptions(
    detectors=("mean",), splits=SPLITS, folds=2, changed=2, workers=1, target_rate=0.1
)


def figures(found: Comparison) -> dict[str, Any]:
    """Everything but times."""
    document = found.model_dump(mode="json", exclude={"made"})
    for detector in document["detectors"]:
        del detector["cost"]
    document["recommendation"].pop("text")
    return document


@pytest.mark.slow
def test_every_unit_under_every_split(fakes: None, manifest: Path, tmp_path: Path) -> None:
    kinds = ("mean", *(k for k in ("windows", "words") if FAKES[k].feature_sets[0] in FEATURE_SETS))
    found = compare(manifest, tmp_path, replace(OPTIONS, detectors=kinds), command="a command")
    assert list(found.splits) == list(SPLITS) and not found.emulated
    assert [d.name for d in found.detectors] == list(kinds)
    levels = {
        "flow": ["flow", "flow_tls", "capture", "capture_with_windows"],
        "host_window": ["host_window", "capture"],
        "capture": ["capture"],
    }
    for detector in found.detectors:
        assert list(detector.splits) == list(SPLITS)
        for split, result in detector.splits.items():
            wanted = levels[detector.unit]
            if split in ("time", "flow"):  # nobody decides about hosts there
                wanted = [level for level in wanted if level != "capture_with_windows"]
            if split == "flow":  # no capture lies whole on one side
                wanted = [level for level in wanted if level != "capture"]
            assert list(result.levels) == wanted
        assert list(detector.robustness) == list(PERTURBATIONS) == list(found.changes)
        assert all((c.malicious, c.benign) == (2, 2) for c in detector.robustness.values())
        assert detector.cost.peak_memory > 10**6 and detector.cost.bytes > 0
    flow = found.detectors[0].splits["group"].levels
    assert known(flow["flow"].roc_auc.value) > 0.9
    assert flow["flow"].positives == flow["flow"].negatives == 16 * 8
    assert flow["capture"].positives == 16
    html = render_comparison(found)
    page = check_inert(html)
    assert "http" not in html.replace("http-equiv", "")
    text = " ".join(page.text)
    for words in (*kinds, *PERTURBATIONS, "a command", "95 % intervals"):
        assert words in text
    assert not re.search(r"\b(nan|inf|None)\b", text)
    assert Comparison.model_validate_json(found.model_dump_json()) == found


def test_a_second_run_trains_nothing_and_says_the_same(
    fakes: None, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare(manifest, tmp_path, OPTIONS)
    trained = Mean.fits
    # Publisher, group, source, family and flow in 2 folds each, time in 3.
    assert trained == 2 * 5 + 3
    monkeypatch.setattr("veilwatch.learning.comparison.hosts.fit_parts", None)  # kept as well
    assert figures(compare(manifest, tmp_path, OPTIONS)) == figures(first)
    assert Mean.fits == trained
    monkeypatch.undo()
    Mean.fits = trained
    monkeypatch.setitem(DETECTORS, "mean", Mean)
    compare(manifest, tmp_path, replace(OPTIONS, seed=8, splits=("group",), changed=0))
    assert Mean.fits == trained + 2  # another seed is another result


def test_a_run_that_was_stopped_goes_on(
    fakes: None, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare(manifest, tmp_path / "whole", OPTIONS)
    trained = Mean.fits
    fit = Mean.fit

    def stopped(self: Mean, *arguments: Any) -> None:
        if Mean.fits == trained + 4:
            raise KeyboardInterrupt
        fit(self, *arguments)

    monkeypatch.setattr(Mean, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare(manifest, tmp_path / "parts", OPTIONS)
    kept = list((tmp_path / "parts").glob("*.npz"))
    assert len(kept) == 4 and not list((tmp_path / "parts").glob(".*"))
    monkeypatch.setattr(Mean, "fit", fit)
    assert figures(compare(manifest, tmp_path / "parts", OPTIONS)) == figures(whole)
    assert Mean.fits == 2 * trained


def test_what_cannot_be_done_is_left_out_with_a_note(fakes: None, tmp_path: Path) -> None:
    manifest = capture_corpus(
        tmp_path / "c",
        captures=16,
        columns={
            "capture_start": [""] * 16,
            "family": ["Cerber" if k % 2 else "" for k in range(16)],
            "source_repo": ["one"] * 16,
            "publisher": ["somebody"] * 16,
        },
    )
    found = compare(
        manifest,
        tmp_path / "folds",
        replace(OPTIONS, detectors=("mean", "unfit"), changed=0),
    )
    assert list(found.splits) == ["group", "flow"]
    assert [d.name for d in found.detectors] == ["mean"] and found.changes == {}
    notes = "\n".join(found.notes)
    for words in (
        "split by time left out: no capture has a date",
        "split by family left out: one family",
        "split by publisher left out: 1 publishers cannot fill 2 folds",
        "split by source left out: 1 sources cannot fill 2 folds",
        "unfit, split by group: no framework here (pip install '.[train]')",
    ):
        assert words in notes
    render_comparison(found)


def test_infected_hosts_that_people_use(fakes: None, tmp_path: Path) -> None:
    settings = ["", "office", "office", "iot\x1b[31m"]
    manifest = capture_corpus(
        tmp_path / "c",
        captures=16,
        flows=3,
        services=12,
        columns={"setting": ["" if k % 2 else settings[k // 2 % 4] for k in range(16)]},
    )
    options = replace(OPTIONS, splits=("flow", "publisher"), detectors=("mean", "words"))
    found = compare(manifest, tmp_path / "folds", replace(options, changed=0))
    assert list(found.splits) == ["publisher", "flow"]  # the hardest first
    mean, words = found.detectors
    result = mean.splits["publisher"]
    recorded, used = result.levels["capture_with_windows"], result.levels["used_host_x1"]
    # Each of the 8 malicious captures on a used host, beside the 8 benign ones as recorded.
    assert (used.positives, used.negatives) == (8, 8)
    assert used.confusion.false_positive == recorded.confusion.false_positive
    assert {k: v.captures for k, v in result.benign_kinds.items()} == {
        "iot\x1b[31m": 2, "office": 4, "unnamed": 2,
    }  # fmt: skip
    alerted = sum(kind.alerted for kind in result.benign_kinds.values())
    assert alerted == recorded.confusion.false_positive
    assert result.benign_blends["used_host_x1"].captures == 8
    assert "used_host_x1" not in words.splits["publisher"].levels
    assert found.recommendation.detector == "mean"
    for sentence in (
        "on hosts that people use (merged captures)",
        "Not judged on used hosts: words",
    ):
        assert sentence in found.recommendation.text
    assert any(note.startswith("Used hosts are merged captures") for note in found.notes)
    assert any(note.endswith("with whole publishers held out.") for note in found.notes)
    text = " ".join(check_inert(render_comparison(found)).text)
    assert "iot\\x1b[31m" in text and "Used hosts x1 (merged captures)" in text
    rows = list(csv.DictReader(io.StringIO(false_alarms_csv(found))))
    mine = [r for r in rows if (r["detector"], r["split"]) == ("mean", "publisher")]
    assert sum(int(r["captures"]) for r in mine if r["level"] == "capture") == 8
    assert {r["level"] for r in mine} == {"capture", *result.benign_blends}
    assert "\x1b" not in latex(found)


def test_what_holds_out_the_same_is_trained_once(fakes: None, tmp_path: Path) -> None:
    authors = [f"source-{k % 8}" for k in range(16)]
    manifest = capture_corpus(tmp_path, captures=16, flows=2, columns={"publisher": authors})
    options = replace(OPTIONS, splits=("publisher", "source"), changed=0)
    found = compare(manifest, tmp_path / "folds", options)
    assert list(found.splits) == ["publisher"]
    assert "split by source left out: it holds out what publisher does" in found.notes


def test_nothing_can_be_compared(fakes: None, manifest: Path, tmp_path: Path) -> None:
    for options, message in (
        (replace(OPTIONS, detectors=("oracle",)), "unknown detector 'oracle'"),
        (replace(OPTIONS, detectors=("mean", "mean")), "named twice"),
        (replace(OPTIONS, splits=("weekday",)), "unknown split 'weekday'"),
        (replace(OPTIONS, detectors=("unfit",), splits=("group",)), "no detector could be trained"),
        (replace(OPTIONS, folds=20, splits=("source",)), "can fill no split"),
    ):
        with pytest.raises(TrainingError, match=message) as caught:
            compare(manifest, tmp_path, options)
        assert caught.value.hint


def test_one_class(fakes: None, tmp_path: Path) -> None:
    manifest = capture_corpus(tmp_path, captures=4)
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if "malicious/" not in line))
    with pytest.raises(TrainingError, match="no malicious flow"):
        compare(manifest, tmp_path / "folds", OPTIONS)


@pytest.fixture(scope="module")
def found(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    DETECTORS["mean"] = Mean
    try:
        options = replace(OPTIONS, splits=("group", "flow"))
        made = compare(manifest, tmp_path_factory.mktemp("folds"), options)
    finally:
        del DETECTORS["mean"]
    hostile = made.detectors[0].model_copy(update={"name": r"a_b & c\d{50%}"})
    return made.model_copy(update={"detectors": [hostile], "emulated": True})


def test_tables_parse_back(found: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(figures_csv(found))))
    detector = found.detectors[0]
    assert len(rows) == sum(
        len(r.levels) + len(r.without_background) for r in detector.splits.values()
    )
    assert all(None not in row and list(row) == list(_COLUMNS) for row in rows)
    row = next(r for r in rows if (r["split"], r["level"]) == ("group", "flow"))
    level = detector.splits["group"].levels["flow"]
    assert row["detector"] == detector.name
    assert float(row["roc_auc"]) == pytest.approx(level.roc_auc.value, abs=1e-5)
    assert int(row["malicious"]) == level.positives
    families = list(csv.DictReader(io.StringIO(families_csv(found))))
    assert {r["family"] for r in families} == set(detector.splits["group"].families)
    changes = list(csv.DictReader(io.StringIO(robustness_csv(found))))
    assert [r["change"] for r in changes] == list(PERTURBATIONS)
    assert float(changes[0]["found"]) == detector.robustness["unchanged"].found


def test_latex_is_escaped_and_balanced(found: Comparison) -> None:
    text = latex(found)
    assert r"a\_b \& c\textbackslash{}d\{50\%\}" in text and "Emulated traffic" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 4
    rows = [line for line in text.splitlines() if line.startswith("a\\_b")]
    assert rows and all(len(re.split(r"(?<!\\)&", row)) == 6 for row in rows)
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")


def test_the_page_says_emulated_and_the_document_is_json(found: Comparison) -> None:
    text = " ".join(check_inert(render_comparison(found)).text)
    assert "Emulated traffic: figures say nothing about real malware." in text
    assert json.loads(found.model_dump_json())["format"] == 2


@pytest.mark.parametrize(("rate", "wanted"), [(1e-3, 0.087), (1e-4, 0.487)])
def test_precision_where_malware_is_rare(rate: float, wanted: float) -> None:
    assert precision_at(0.95, rate) == pytest.approx(wanted, abs=0.001)
    assert precision_at(0.0, 0.0) == 0.0
