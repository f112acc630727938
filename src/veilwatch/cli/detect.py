"""`veilwatch detect`: captures to alerts and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from veilwatch.cli import reading
from veilwatch.cli.options import (
    DEFAULTS,
    ActiveTimeout,
    Captures,
    GtpPorts,
    IdleTimeout,
    MaxFlows,
    ModelFolder,
    SubscriberKeyFile,
    SubscriberRotation,
    key_ring,
)
from veilwatch.cli.outputs import Force, check_folder, leaving, output_option
from veilwatch.cli.terminal import AsJson, Quiet, console, this_command, working
from veilwatch.imports import hidden
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.subscriber import Rotation


def command(
    captures: Captures,
    output: Annotated[Path, output_option("DIR", "Folder for the results.", "--out")],
    model: ModelFolder = None,
    idle_timeout: IdleTimeout = DEFAULTS.idle_timeout_s,
    active_timeout: ActiveTimeout = DEFAULTS.active_timeout_s,
    max_flows: MaxFlows = DEFAULTS.max_flows,
    gtp_port: GtpPorts = None,
    subscriber_key_file: SubscriberKeyFile = None,
    subscriber_rotation: SubscriberRotation = Rotation.NONE,
    as_json: AsJson = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Score captures: eve.json, flows.parquet, report.html and summary.json in one folder.

    Example: `veilwatch detect n3.pcapng -o results`
    """
    # They take seconds to load: only the verbs that need them pay. Scoring needs LightGBM's trees
    # and not the classes that it makes of scikit-learn's, which takes as long as all the rest.
    with hidden("sklearn", "pandas"):
        from veilwatch.learning.detectors import lightgbm as _  # noqa: F401
    from veilwatch.learning.models import load_boxed_model, load_model
    from veilwatch.report.detection.console import print_summary
    from veilwatch.runs import DETECTION_FILES, run_detection

    outputs = {what: output / name for what, name in DETECTION_FILES.items()}
    check_folder(output, *DETECTION_FILES.values(), force=force)
    trained = load_boxed_model() if model is None else load_model(model)
    config = MeterConfig(
        idle_timeout_s=idle_timeout, active_timeout_s=active_timeout, max_flows=max_flows
    )
    with working(quiet or as_json) as progress, leaving(*outputs.values()):
        detection = run_detection(
            captures,
            trained,
            output,
            config=config,
            gtp_ports=gtp_port or (),
            subscriber_keys=key_ring(subscriber_key_file, subscriber_rotation),
            command=this_command(),
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(detection.summary(), indent=1))
    else:
        print_summary(detection.document, console, outputs=None if quiet else outputs)
    reading.say(detection.captures, detection.balance, quiet=quiet or as_json)
    reading.settle(detection.captures, detection.balance)
