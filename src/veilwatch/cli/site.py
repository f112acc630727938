"""`veilwatch site`: thresholds for one place, learned from a period that was quiet there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from veilwatch.cli import stored
from veilwatch.cli.options import ConfigFile
from veilwatch.cli.outputs import Force, check_output, output_option
from veilwatch.cli.terminal import Quiet, console, warn
from veilwatch.cli.times import Since, Until, period
from veilwatch.detection.alerting.site import QuietPeriod, learn_thresholds, site_text
from veilwatch.errors import VeilwatchError
from veilwatch.files import write_text
from veilwatch.sensor.load import load_config
from veilwatch.sensor.score_history import read_scores
from veilwatch.sensor.sitemodel import model_identity

app = typer.Typer(
    no_args_is_help=True,
    help="Thresholds for this place, learned from a quiet period.",
    rich_markup_mode=None,
)


@app.callback()
def main() -> None:
    """Thresholds for this place, learned from a quiet period."""


@app.command()
def learn(
    config: ConfigFile,
    name: Annotated[
        str, typer.Option(metavar="TEXT", help="What the quiet period is called in reports.")
    ],
    since: Since,
    output: Annotated[Path, output_option("FILE", "Where the thresholds go.", "--out")],
    until: Until = "0s",
    target: Annotated[
        float | None,
        typer.Option(
            "--target",
            min=0.001,
            max=100_000,
            help="False alerts a day, of flows and hosts each; by default the configuration's.",
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Learn from what a sensor scored in a period that people hold to be free of infections.

    Name the file under alerts.site and send SIGHUP to put it to use.

    Example: `veilwatch site learn -c sensor.toml --name "week 40" --since 7d -o site.json`
    """
    loaded = load_config(config, environment=os.environ).config
    check_output(output, force=force)
    begins, ends = period(since, until)
    if begins is None or ends is None:
        raise VeilwatchError("the period has no end", where="--since, --until", hint="give both")
    span = QuietPeriod(name=name, begins_ns=begins, ends_ns=ends)
    with stored.open_store(loaded.store_url) as store:
        units, groups, hours = read_scores(store, loaded.sensor.name, span)
    if not units.units:
        raise VeilwatchError(
            "the sensor scored nothing in that period",
            where=loaded.store_url,
            hint="choose another period, or let the sensor run",
        )
    site = learn_thresholds(
        span,
        model=model_identity(loaded.model.folder),
        target_per_day=target or loaded.alerts.target_false_alerts_per_day,
        units=units,
        groups=groups if groups.units else None,
    )
    write_text(output, site_text(site))
    for caution in site.cautions:
        warn(caution)
    if quiet:
        return
    console.print(f"{hours:,} hours, {units.units:,} flows, {groups.units:,} host-hours")
    for what, level in (("flows", site.unit), ("hosts", site.group)):
        if level:
            console.print(
                f"{what}: alert from {level.threshold:.4f}; {level.passed:,} of {level.units:,} "
                f"passed, at most {level.most_per_day:.1f} a day with 95 % confidence"
            )
    console.print(Text(f"Thresholds: {output}"), soft_wrap=True)
