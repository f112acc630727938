"""`veilwatch watch`: the sensor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from veilwatch.cli.options import key_ring
from veilwatch.cli.terminal import working


def command(
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="Configuration, a TOML file.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Override a setting, such as capture.ring_mb=128. No secrets: every user of the "
            "machine sees them in the list of processes.",
        ),
    ] = None,
) -> None:
    """Watch interfaces or a folder, and tell of what looks like malware, until SIGTERM or Ctrl-C.

    SIGHUP reads the sections alerts, model and windows anew, with the files that they name.

    Example: `veilwatch watch --config /etc/veilwatch/sensor.toml`
    """
    import os
    import sys

    from veilwatch.sensor.load import load_config
    from veilwatch.sensor.state import hold_state
    from veilwatch.sensor.watch import Sensor, check_start

    words = tuple(overrides or ())
    loaded = load_config(config, environment=os.environ, overrides=words).config
    keys = key_ring(loaded.privacy.subscriber_key_file, loaded.privacy.rotation)
    with hold_state(loaded.sensor.state):
        with working(False):  # a first start says that it compiles, and a second one nothing
            check_start(loaded)
        sensor = Sensor(loaded, keys, file=config.absolute(), overrides=words)
        sensor.run()
    if sys.stderr.isatty():  # elsewhere the log says so
        print(f"veilwatch: ended: {sensor.left()}", file=sys.stderr)
