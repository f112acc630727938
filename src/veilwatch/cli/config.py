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

from veilwatch.cli import stored
from veilwatch.cli.options import Overrides
from veilwatch.cli.outputs import STDOUT, Force, check_output
from veilwatch.cli.terminal import AsJson, Quiet, console
from veilwatch.errors import VeilwatchError
from veilwatch.files import replacing
from veilwatch.report.listing import Listing, texts, whole
from veilwatch.sensor import settings
from veilwatch.sensor.config import SensorConfig
from veilwatch.sensor.load import Loaded, leaves, load_config, masked
from veilwatch.sensor.template import template, toml
from veilwatch.sinks.base import open_sink

app = typer.Typer(
    no_args_is_help=True,
    help="The configuration of a sensor: write, check, show.",
    rich_markup_mode=None,
)

File = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="The TOML file.", show_default=False)
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration of the sensor, as for other verbs, instead of FILE.",
        show_default=False,
    ),
]


def _one(file: Path | None, config: Path | None) -> Path:
    """Return the file that was named in one of the two ways."""
    if file is not None and config is not None:
        raise VeilwatchError("two configurations", where="--config", hint="name the file once")
    named = file or config
    if named is None:
        raise VeilwatchError("no configuration was named", hint="name the TOML file")
    return named


def _load(file: Path, overrides: list[str] | None) -> Loaded:
    return load_config(file, environment=os.environ, overrides=overrides or ())


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to write; - for here.")] = Path(
        "sensor.toml"
    ),
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write a commented file with every setting.

    Example: `veilwatch config init sensor.toml`
    """
    if file == STDOUT:
        typer.echo(template(), nl=False)
        return
    check_output(file, force=force)
    with replacing(file) as stream:
        stream.write(template().encode())
    file.chmod(0o640)  # URLs of sinks may come to hold passwords
    if not quiet:
        told = f"written: {file}; choose capture and model in it"
        console.print(stored.sentence(told), soft_wrap=True)


@app.command()
def check(
    file: File = None,
    config: ConfigOption = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Say what is wrong with a file, or that nothing is, and what to look at.

    The allow-list and the thresholds that it names are read as well, sinks are opened, and
    interfaces and folders are looked for. Nothing is sent.

    Example: `veilwatch config check sensor.toml`
    """
    file = _one(file, config)
    loaded = _load(file, overrides)
    cautions = list(_cautions(file, loaded))
    if not quiet:
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
    yield from _doubtful_model(config)
    if not config.sinks.urls:
        yield "sinks.urls: alerts are stored and sent nowhere"
    if config.privacy.subscriber_key_file is None:
        yield "privacy.subscriber_key_file: none, so pseudonyms change with every start"
    urls = [*config.sinks.urls, config.store.url or ""]
    mode = file.stat().st_mode
    if any(masked(url) != url for url in urls) and mode & (stat.S_IROTH | stat.S_IWOTH):
        yield f"{file}: holds a secret and everybody can read it (chmod o= {file})"


def _doubtful_model(config: SensorConfig) -> Iterator[str]:
    """Say what is wrong with the model, or what it was trained on; no detector is loaded."""
    if not (config.model.folder / "model.json").is_file():
        yield f"model.path: no model at {config.model.folder} on this machine"
        return
    # Features and detectors load with it: other verbs of this group need none.
    from veilwatch.sensor.sitemodel import EMULATED, check_site_model

    try:
        manifest = check_site_model(config)
    except VeilwatchError as error:
        yield f"model.path: the sensor would not start: {error}"
        return
    if manifest.corpus.emulated:
        yield f"model.path: {EMULATED}"


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
def show(
    file: File = None,
    config: ConfigOption = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Print every setting that holds and where it came from; passwords are masked.

    Example: `veilwatch config show sensor.toml --set capture.ring_mb=256`
    """
    loaded = _load(_one(file, config), overrides)
    rows = [
        (name, _masked(value), loaded.sources.get(name, "default"))
        for name, value in leaves(loaded.config)
    ]
    if as_json:
        values = {name: {"value": value, "from": source} for name, value, source in rows}
        typer.echo(json.dumps(values, indent=1, default=str))
        return
    table = Listing([*whole("setting"), *texts("value", "from")])
    for name, value, source in rows:
        shown = "" if value is None else toml(value)
        table.add(name, stored.sentence(shown), stored.sentence(source, "dim"))
    console.print(table)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return value
