"""Whole runs, as the public API and the command line start them, and the results that they give."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from veilwatch import __version__
from veilwatch.detection.alerting.policy import raise_alerts
from veilwatch.detection.scoring import FlowScorer
from veilwatch.errors import OutputError
from veilwatch.export.flow_writer import FlowWriter
from veilwatch.files import make_folder, write_text
from veilwatch.learning.models import Model
from veilwatch.progress import SILENT, Progress
from veilwatch.report.detection.build import build_document
from veilwatch.report.detection.document import Origin, ReportDocument
from veilwatch.report.detection.origin import describe_model, find_origin
from veilwatch.schema.alerts import Alert
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.scores import ScoreFrame
from veilwatch.sinks.eve import write_alerts
from veilwatch.traffic.capture import Captures
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.pipeline import FlowReader
from veilwatch.traffic.subscriber import KeyRing

if TYPE_CHECKING:
    from veilwatch.corpus.catalogue import Corpus
    from veilwatch.learning.comparison import CompareOptions, Comparison
    from veilwatch.learning.training import TrainingOptions
    from veilwatch.learning.training.crossvalidate import CrossSplit

EVE: Final = "eve.json"
FLOWS: Final = "flows.parquet"

DETECTION_FILES: Final = {
    "alerts": EVE,
    "flows": FLOWS,
    "report": "report.html",
    "summary": "summary.json",
}
"""What `run_detection` writes into a folder, by what it holds."""

COMPARISON_FILES: Final = (
    *("comparison.json", "comparison.html", "figures.csv", "families.csv", "false_alarms.csv"),
    *("robustness.csv", "tables.tex"),
)
"""What `run_comparison` writes into a folder."""

EVALUATION_FORMS: Final = (".json", ".html")
"""Suffixes of what an evaluation is written as."""

EMULATED_MARK: Final = "emulated"
"""Word in a capture's comment by which the lab marks its output."""


@dataclass(frozen=True, slots=True)
class Detection:
    """What a model said of captures.

    Attributes
    ----------
    alerts
        Flows and hosts that are held to be malicious.
    scores
        Scores of all flows and hosts, thresholds and reasons.
    captures
        What was read, and where reading stopped.
    balance
        What became of every packet; see `veilwatch inspect`.
    origin
        What the model learned from, as far as it puts the result in doubt.
    emulated
        Whether a capture says that it was made by the lab.
    evicted
        Flows that were ended early because too many were alive.
    document
        Everything that the report says.
    """

    alerts: list[Alert]
    scores: ScoreFrame
    captures: CaptureReport
    balance: dict[str, int]
    origin: Origin
    emulated: bool
    evicted: int
    document: ReportDocument = field(repr=False)

    @property
    def flows(self) -> pl.DataFrame:
        """One row a flow, with `score` and `alert`; see `veilwatch.schema.scores.ScoreFrame`."""
        return self.scores.flows

    @property
    def hosts(self) -> pl.DataFrame:
        """One row a host, with `score`, `alert`, `family` and `probability`."""
        return self.scores.hosts

    def report(self, path: str | Path) -> Path:
        """Write the report as one self-contained HTML page.

        Raises
        ------
        OutputError
            If it cannot be written there.
        """
        # Templates load here, because nobody should wait for them before packets are read.
        from veilwatch.report.detection.page import render_html

        write_text(Path(path), render_html(self.document))
        return Path(path)

    def summary(self) -> dict[str, Any]:
        """Return what a script would want to know."""
        flow_alerts = int(self.flows["alert"].sum())
        host_alerts = int(self.hosts["alert"].sum())
        written = [alert.kind for alert in self.alerts]
        return {
            "veilwatch": __version__,
            "emulated": self.emulated,
            "model_emulated": self.origin.emulated,
            "model_learned_from": list(self.origin.learned),
            "model_learned_flows": self.origin.learned_flows,
            "packets": self.captures.packets,
            "balance": self.balance,
            "flows": self.flows.height,
            "evicted_flows": self.evicted,
            "flow_alerts": flow_alerts,
            "host_alerts": host_alerts,
            # Beyond the bounds: counted, and marked in the flow table, but not written one by one.
            "flow_alerts_left_out": flow_alerts - written.count("flow"),
            "host_alerts_left_out": host_alerts - written.count("host"),
            "hosts_without_windows": self.scores.hosts_without_windows,
            "flow_threshold": self.scores.flow_threshold,
            "host_threshold": self.scores.host_threshold,
            "hosts": [
                {
                    "host": alert.host,
                    "subscriber": alert.subscriber,
                    "score": round(alert.score, 6),
                    "severity": alert.severity,
                    "thin": alert.thin,
                    **alert.evidence,
                }
                for alert in self.alerts
                if alert.kind == "host"
            ],
            "faults": {file.name: file.fault for file in self.captures.faults},
        }


def run_detection(
    captures: Captures,
    model: Model,
    output: Path | None = None,
    *,
    config: MeterConfig = MeterConfig(),  # noqa: B008 (frozen)
    gtp_ports: Sequence[int] = (),
    subscriber_keys: KeyRing | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> Detection:
    """Score captures.

    Parameters
    ----------
    output
        Folder for `DETECTION_FILES`: alerts, flows with scores, report and summary. Flows are
        written there as they are scored, with every column; the result keeps only those that alerts
        and reports need. None writes nothing.
    command
        What the report names as the command that made it.

    Raises
    ------
    CaptureError, ModelError, OutputError
        If something cannot be read, judged or written.
    """
    scorer = FlowScorer(model)
    with ExitStack() as stack:
        reader = stack.enter_context(
            FlowReader(
                captures,
                config=config,
                gtp_ports=gtp_ports,
                subscriber_keys=subscriber_keys,
                progress=progress,
            )
        )
        writer = None
        if output is not None:
            writer = stack.enter_context(FlowWriter(make_folder(output) / FLOWS))
        for table in reader:
            frame = scorer.add(table)
            if writer is not None:
                writer.write(frame)
    scores = scorer.finish()
    report = reader.captures
    emulated = _is_emulated(report)
    alerts = raise_alerts(scores, captures=report, emulated=emulated, ransomware=model.ransomware)
    origin = find_origin(model, scores.flows, [file.name for file in report.files], progress)
    document = build_document(
        captures=report,
        balance=reader.balance,
        scores=scores,
        alerts=alerts,
        manifest=describe_model(model),
        emulated=emulated,
        origin=origin,
        command=command,
        alerts_file=EVE,
    )
    found = Detection(
        *(alerts, scores, report, reader.balance, origin, emulated, reader.meter.evicted, document)
    )
    if output is not None:
        progress.start("writing alerts and report")
        write_alerts(output / EVE, alerts, scores.flows)
        found.report(output / DETECTION_FILES["report"])
        write_text(
            output / DETECTION_FILES["summary"], json.dumps(found.summary(), indent=1) + "\n"
        )
    return found


def _is_emulated(report: CaptureReport) -> bool:
    return any(
        EMULATED_MARK in comment.lower() for file in report.files for comment in file.comments
    )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a model, or a way of training one, is on labelled captures.

    Attributes
    ----------
    figures
        By level (`flow`, `flow_tls`, `host_window`, `channel`, `capture`, `capture_with_windows`,
        `used_host_x1`, `used_host_x3`) counts and rates; `families`; `benign_kinds`;
        `without_background`; see docs/evaluation.md.
    model
        Name of what was evaluated.
    emulated
        Whether the captures, or those that the model learned from, are the lab's.
    command
        What made it.
    made
        When, as ISO 8601 in UTC.
    """

    figures: dict[str, Any]
    model: str
    emulated: bool
    command: str = ""
    made: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def document(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "veilwatch": __version__,
            "made": self.made,
            "command": self.command,
            "emulated": self.emulated,
            "model": self.model,
            **self.figures,
        }

    def report(self, path: str | Path) -> Path:
        """Write a page (`.html`) or the figures (`.json`).

        Raises
        ------
        OutputError
            If the suffix is another one, or the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".json":
            write_text(path, json.dumps(self.document(), indent=1) + "\n")
        elif suffix == ".html":
            from veilwatch.report.evaluation.page import render_evaluation

            page = render_evaluation(
                self.figures, model=self.model, emulated=self.emulated, command=self.command
            )
            write_text(path, page)
        else:
            raise OutputError(
                f"cannot write {suffix or 'a file without suffix'}",
                where=path,
                hint=f"known: {', '.join(EVALUATION_FORMS)}",
            )
        return path


def run_evaluation(corpus: Corpus, model: Model, *, command: str = "") -> Evaluation:
    """Hold a model against a corpus; captures that it learned from do not count.

    Raises
    ------
    TrainingError
        If nothing is left.
    """
    from veilwatch.learning.training import evaluate_model

    emulated = corpus.emulated or model.manifest.corpus.emulated
    return Evaluation(evaluate_model(model, corpus), model.manifest.name, emulated, command)


def run_cross_validation(
    corpus: Corpus,
    split: CrossSplit,
    options: TrainingOptions,
    *,
    command: str = "",
    progress: Progress = SILENT,
) -> Evaluation:
    """Train and test within a corpus, each fold scored by detectors that never saw it.

    Raises
    ------
    TrainingError
        If the corpus holds one class only, or too few sources or groups for the folds.
    """
    from veilwatch.learning.training import cross_validate

    figures = cross_validate(corpus, split, options, progress=progress)
    name = f"{options.detector}, {split} held out"
    return Evaluation(figures, name, corpus.emulated, command)


def run_comparison(
    manifest: Path,
    output: Path,
    options: CompareOptions,
    *,
    command: str = "",
    progress: Progress = SILENT,
) -> Comparison:
    """Compare detectors and write `COMPARISON_FILES`.

    Results of single folds are kept in `output`: a second run trains only what is missing there.

    Raises
    ------
    TrainingError, CorpusError, OutputError
        If nothing can be compared, read or written.
    """
    from veilwatch.learning.comparison import compare
    from veilwatch.learning.comparison.tables import (
        false_alarms_csv,
        families_csv,
        figures_csv,
        latex,
        robustness_csv,
    )
    from veilwatch.report.comparison.page import render_comparison

    make_folder(output)
    made = compare(manifest, output / "folds", options, command=command, progress=progress)
    texts = {
        "comparison.json": made.model_dump_json(indent=1) + "\n",
        "comparison.html": render_comparison(made),
        "figures.csv": figures_csv(made),
        "families.csv": families_csv(made),
        "false_alarms.csv": false_alarms_csv(made),
        "robustness.csv": robustness_csv(made),
        "tables.tex": latex(made),
    }
    for name in COMPARISON_FILES:
        write_text(output / name, texts[name])
    return made
