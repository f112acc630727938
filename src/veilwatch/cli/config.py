"""`veilwatch config`: the configuration of a sensor."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from veilwatch.cli import stored
from veilwatch.cli.terminal import console, print_table
from veilwatch.errors import OutputError, VeilwatchError
from veilwatch.files import replacing
from veilwatch.sensor import settings
from veilwatch.sensor.config import SensorConfig
from veilwatch.sensor.load import Loaded, leaves, load_config, masked
from veilwatch.sensor.template import template, toml
from veilwatch.sinks.base import open_sink

app = typer.Typer(
    no_args_is_help=True,
    help="The configuration of a sensor: write, check, show.",
    rich_markup_mode="markdown",
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="A value that wins over the file; may be given more than once. No secrets: every user "
        "of the machine sees them in the list of processes.",
        show_default=False,
    ),
]


def _load(file: Path, overrides: list[str] | None) -> Loaded:
    return load_config(file, environment=os.environ, overrides=overrides or ())


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to write; - for here.")] = Path(
        "sensor.toml"
    ),
) -> None:
    """Write a commented file with every setting. What stands there is not overwritten.

    Example: `veilwatch config init sensor.toml`
    """
    if str(file) == "-":
        typer.echo(template(), nl=False)
        return
    if file.exists():
        raise OutputError("there is a file already", where=file, hint="name another")
    with replacing(file) as stream:
        stream.write(template().encode())
    file.chmod(0o640)  # URLs of sinks may come to hold passwords
    console.print(
        stored.sentence(f"written: {file}; choose capture and model in it"), soft_wrap=True
    )


@app.command()
def check(file: File, overrides: Overrides = None) -> None:
    """Say what is wrong with a file, or that nothing is, and what to look at.

    The allow-list and the thresholds that it names are read as well, sinks are opened, and
    interfaces and folders are looked for. Nothing is sent.

    Example: `veilwatch config check sensor.toml`
    """
    loaded = _load(file, overrides)
    cautions = list(_cautions(file, loaded))
    console.print(stored.sentence(f"{file}: good"), soft_wrap=True)
    for text in cautions:
        console.print(stored.sentence(text, "yellow"), soft_wrap=True)


def _cautions(file: Path, loaded: Loaded) -> Iterator[str]:
    config = loaded.config
    allow = settings.policy(config).allow
    for entry in allow.expired(time.time_ns()):
        place = f"{config.alerts.allow_file}:{entry.line}"
        yield f"{place}: expired, matches nothing any more: {entry.reason}"
    site = settings.site(config)
    if site:
        yield from (f"{config.alerts.site}: {text}" for text in site.cautions)
    yield from _missing_inputs(config)
    yield from _wrong_sinks(config)
    if not (config.model.path / "model.json").is_file():
        yield f"model.path: no model at {config.model.path} on this machine"
    if not config.sinks.urls:
        yield "sinks.urls: alerts are stored and sent nowhere"
    if config.privacy.subscriber_key_file is None:
        yield "privacy.subscriber_key_file: none, so pseudonyms change with every start"
    urls = [*config.sinks.urls, config.store.url or ""]
    mode = file.stat().st_mode
    if any(masked(url) != url for url in urls) and mode & (stat.S_IROTH | stat.S_IWOTH):
        yield f"{file}: holds a secret and everybody can read it (chmod o= {file})"


def _wrong_sinks(config: SensorConfig) -> Iterator[str]:
    """Open every sink, which needs its library and the files that it names; nothing is sent."""
    seen = set()
    for url in config.sinks.urls:
        try:
            with open_sink(url) as sink:
                if sink.address.shown in seen:
                    yield f"sinks.urls: {sink.address.shown} is named twice"
                seen.add(sink.address.shown)
        except VeilwatchError as error:
            yield f"sinks.urls: the sensor would not start: {error}"


def _missing_inputs(config: SensorConfig) -> Iterator[str]:
    """Say what of the inputs is not on this machine: it may come later."""
    folder = config.capture.folder
    if folder is not None and not folder.is_dir():
        yield f"capture.folder: no folder at {folder} on this machine"
    known = sorted(name for _, name in socket.if_nameindex())
    for name in config.capture.interfaces:
        if name not in known:
            yield (
                f"capture.interfaces: no interface {name} on this machine, which has "
                f"{', '.join(known) or 'none'}"
            )


@app.command()
def show(file: File, overrides: Overrides = None, as_json: stored.AsJson = False) -> None:
    """Print every setting that holds and where it came from; passwords are masked.

    Example: `veilwatch config show sensor.toml --set capture.ring_mb=256`
    """
    loaded = _load(file, overrides)
    rows = [
        (name, _masked(value), loaded.sources.get(name, "default"))
        for name, value in leaves(loaded.config)
    ]
    if as_json:
        values = {name: {"value": value, "from": source} for name, value, source in rows}
        typer.echo(json.dumps(values, indent=1, default=str))
        return
    table = stored.plain_table("setting", "value", "from")
    for name, value, source in rows:
        shown = "" if value is None else toml(value)
        table.add_row(Text(name), stored.sentence(shown), stored.sentence(source, "dim"))
    print_table(table)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return value
