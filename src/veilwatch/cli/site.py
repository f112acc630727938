"""`veilwatch site`: thresholds for one place, learned from a period that was quiet there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from veilwatch.alerting.site import QuietPeriod, learn_thresholds, site_text
from veilwatch.cli import stored
from veilwatch.cli.terminal import console
from veilwatch.errors import VeilwatchError
from veilwatch.files import write_text
from veilwatch.sensor.load import load_config
from veilwatch.sensor.scorebook import read_scores
from veilwatch.sensor.sitemodel import model_identity

app = typer.Typer(
    no_args_is_help=True,
    help="Thresholds for this place, learned from a quiet period.",
    rich_markup_mode="markdown",
)


@app.callback()
def main() -> None:
    """Thresholds for this place, learned from a quiet period."""


@app.command()
def learn(
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="Configuration of the sensor.")
    ],
    name: Annotated[str, typer.Option(help="What the quiet period is called in reports.")],
    since: Annotated[str, typer.Option(metavar="WHEN", help="Its beginning: 2026-06-01, or 7d.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where the thresholds go.")
    ],
    until: Annotated[str, typer.Option(metavar="WHEN", help="Its end; by default now.")] = "0s",
    target: Annotated[
        float | None,
        typer.Option(
            "--target",
            min=0.001,
            max=100_000,
            help="False alerts a day, of flows and hosts each; by default the configuration's.",
        ),
    ] = None,
) -> None:
    """Learn from what a sensor scored in a period that people hold to be free of infections.

    Name the file under alerts.site and send SIGHUP to put it to use.

    Example: `veilwatch site learn -c sensor.toml --name "week 40" --since 7d -o site.json`
    """
    loaded = load_config(config, environment=os.environ).config
    begins, ends = stored.moment(since), stored.moment(until)
    assert begins is not None and ends is not None
    if begins >= ends:
        raise VeilwatchError("the period ends before it begins", where="--since, --until")
    period = QuietPeriod(name=name, begins_ns=begins, ends_ns=ends)
    with stored.open_store(loaded.store_url) as store:
        units, groups, hours = read_scores(store, loaded.sensor.name, period)
    if not units.units:
        raise VeilwatchError(
            "the sensor scored nothing in that period",
            where=loaded.store_url,
            hint="choose another period, or let the sensor run",
        )
    site = learn_thresholds(
        period,
        model=model_identity(loaded.model.path),
        target_per_day=target or loaded.alerts.target_false_alerts_per_day,
        units=units,
        groups=groups if groups.units else None,
    )
    write_text(out, site_text(site))
    console.print(f"{hours:,} hours, {units.units:,} flows, {groups.units:,} host-hours")
    for what, level in (("flows", site.unit), ("hosts", site.group)):
        if level:
            console.print(
                f"{what}: alert from {level.threshold:.4f}; {level.passed:,} of {level.units:,} "
                f"passed, at most {level.most_per_day:.1f} a day with 95 % confidence"
            )
    for caution in site.cautions:
        console.print(Text(caution, style="yellow"))
    console.print(Text(f"Thresholds: {out}"), soft_wrap=True)
