"""Detection as `detect` and `demo` run it: captures and a model in, a folder of results out."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from veilwatch import __version__
from veilwatch.detection.alerting.policy import raise_alerts
from veilwatch.detection.scoring import FlowScorer
from veilwatch.export.flow_writer import FlowWriter
from veilwatch.files import make_folder, write_text
from veilwatch.learning.features.sketch import seen_share
from veilwatch.learning.models import Model
from veilwatch.progress import Progress
from veilwatch.report.detection.build import build_document
from veilwatch.report.detection.document import Origin, ReportDocument
from veilwatch.schema.alerts import Alert
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.scores import ScoreFrame
from veilwatch.schema.text import visible
from veilwatch.sinks.eve import write_alerts
from veilwatch.traffic.capture import Captures
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.pipeline import FlowReader
from veilwatch.traffic.subscriber import KeyRing

EVE: Final = "eve.json"
FLOWS: Final = "flows.parquet"
REPORT: Final = "report.html"
SUMMARY: Final = "summary.json"

MAX_HASHED: Final = 1 << 32
"""Largest input of which the content is compared with the training captures, in bytes: four seconds
of reading. Larger ones are told by their flows alone."""

SHOWN_LEARNED: Final = 5
"""Inputs that are named where the model learned from them."""

EMULATED_MARK: Final = "emulated"
"""Word in a capture's comment by which the lab marks its output."""


@dataclass(frozen=True, slots=True)
class Detection:
    """What a run found and where it lies."""

    document: ReportDocument
    alerts: list[Alert]
    scores: ScoreFrame
    outputs: dict[str, Path]
    captures: CaptureReport
    balance: dict[str, int]


def run_detection(
    captures: Captures,
    model: Model,
    out: Path,
    *,
    config: MeterConfig,
    gtp_ports: Sequence[int] = (),
    subscriber_keys: KeyRing | None = None,
    progress: Progress,
) -> Detection:
    """Score captures and write alerts, flows with scores, report and summary into `out`."""
    scorer = FlowScorer(model)
    make_folder(out)
    outputs = {
        "alerts": out / EVE,
        "flows": out / FLOWS,
        "report": out / REPORT,
        "summary": out / SUMMARY,
    }
    with (
        FlowReader(
            captures,
            config=config,
            gtp_ports=gtp_ports,
            subscriber_keys=subscriber_keys,
            progress=progress,
        ) as reader,
        FlowWriter(outputs["flows"]) as writer,
    ):
        for table in reader:
            writer.write(scorer.add(table))
    scores = scorer.finish()
    report = reader.captures
    emulated = _is_emulated(report)
    alerts = raise_alerts(scores, captures=report, emulated=emulated, ransomware=model.ransomware)
    progress.start("writing alerts and report")
    write_alerts(outputs["alerts"], alerts, scores.flows)
    origin = _origin(model, scores, report, progress)
    document = build_document(
        captures=report,
        balance=reader.balance,
        scores=scores,
        alerts=alerts,
        manifest=_card(model),
        emulated=emulated,
        origin=origin,
        command=shlex.join(["veilwatch", *sys.argv[1:]]),
        alerts_file=EVE,
    )
    # The page's templates load here, because nobody should wait for them before packets are read.
    from veilwatch.report.detection.page import render_html

    write_text(outputs["report"], render_html(document))
    write_text(
        outputs["summary"], json.dumps(_summary(scores, alerts, reader, origin), indent=1) + "\n"
    )
    return Detection(document, alerts, scores, outputs, report, reader.balance)


def _is_emulated(report: CaptureReport) -> bool:
    return any(
        EMULATED_MARK in comment.lower() for file in report.files for comment in file.comments
    )


def _card(model: Model) -> dict[str, Any]:
    """What the report says of the model."""
    manifest = model.manifest
    corpus = manifest.corpus
    return {
        "name": manifest.name,
        "target_fpr": manifest.thresholds.target_false_positive_rate,
        "held_out": manifest.held_out,
        "prior": model.calibration.prior,
        "detector": manifest.detector,
        "features": f"{len(manifest.features.names)} ({', '.join(manifest.features.sets)})",
        "trained": manifest.created,
        "malicious captures": corpus.malicious_captures,
        "benign captures": corpus.benign_captures,
        "malicious flows": corpus.malicious_units,
        "benign flows": corpus.benign_units,
        "corpus": "emulated" if corpus.emulated else "real captures",
        "members": len(manifest.members),
        "feature schema": manifest.features.hash,
        "Veilwatch": manifest.veilwatch,
    }


def _origin(model: Model, scores: ScoreFrame, report: CaptureReport, progress: Progress) -> Origin:
    """Say whether the model was made of emulated traffic, or of what it judges here."""
    corpus = model.manifest.corpus
    known = set(corpus.captures.values())
    names = [file.name for file in report.files]
    progress.start("comparing with what the model learned from", len(names))
    learned = []
    for name in names:
        if _content_hash(Path(name)) in known:
            learned.append(visible(Path(name).name))
        progress.advance()
    return Origin(
        emulated=corpus.emulated,
        learned=tuple(learned[:SHOWN_LEARNED]),
        more_learned=max(len(learned) - SHOWN_LEARNED, 0),
        learned_flows=round(seen_share(scores.flows, corpus.flow_sketch), 4),
    )


def _content_hash(file: Path) -> str:
    """Return the SHA-256 of a file that is not too large, '' of anything else."""
    try:
        if not file.is_file() or file.stat().st_size > MAX_HASHED:
            return ""
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""  # it may be gone by now; its flows are compared all the same


def _summary(
    scores: ScoreFrame, alerts: Sequence[Alert], reader: FlowReader, origin: Origin
) -> dict[str, Any]:
    """Return what a script would want to know."""
    flow_alerts = int(scores.flows["alert"].sum())
    host_alerts = int(scores.hosts["alert"].sum())
    return {
        "veilwatch": __version__,
        "emulated": _is_emulated(reader.captures),
        "model_emulated": origin.emulated,
        "model_learned_from": list(origin.learned),
        "model_learned_flows": origin.learned_flows,
        "packets": reader.captures.packets,
        "balance": reader.balance,
        "flows": scores.flows.height,
        "evicted_flows": reader.meter.evicted,
        "flow_alerts": flow_alerts,
        "host_alerts": host_alerts,
        # Beyond the bounds: counted, and marked in the flow table, but not written one by one.
        "flow_alerts_left_out": flow_alerts - sum(alert.kind == "flow" for alert in alerts),
        "host_alerts_left_out": host_alerts - sum(alert.kind == "host" for alert in alerts),
        "hosts_without_windows": scores.hosts_without_windows,
        "flow_threshold": scores.flow_threshold,
        "host_threshold": scores.host_threshold,
        "hosts": [
            {
                "host": alert.host,
                "subscriber": alert.subscriber,
                "score": round(alert.score, 6),
                "severity": alert.severity,
                "thin": alert.thin,
                **alert.evidence,
            }
            for alert in alerts
            if alert.kind == "host"
        ],
        "faults": {file.name: file.fault for file in reader.captures.faults},
    }
