"""`veilwatch watch`: the sensor."""

from __future__ import annotations

import sys

from veilwatch.cli.options import ConfigFile, Overrides, key_ring
from veilwatch.cli.terminal import Quiet, working


def command(
    config: ConfigFile,
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Watch interfaces or a folder, and tell of what looks like malware, until SIGTERM or Ctrl-C.

    SIGHUP reads the sections alerts, model and windows anew, with the files that they name.

    Example: `veilwatch watch --config /etc/veilwatch/sensor.toml`
    """
    import os

    from veilwatch.sensor.load import load_config
    from veilwatch.sensor.state import hold_state
    from veilwatch.sensor.watch import Sensor, check_start

    words = tuple(overrides or ())
    loaded = load_config(config, environment=os.environ, overrides=words).config
    keys = key_ring(loaded.privacy.subscriber_key_file, loaded.privacy.rotation)
    with hold_state(loaded.sensor.state):
        with working(quiet):  # a first start says that it compiles, and a second one nothing
            check_start(loaded)
        sensor = Sensor(loaded, keys, file=config.absolute(), overrides=words)
        sensor.run()
    if sys.stderr.isatty():  # elsewhere the log says so
        print(f"veilwatch: ended: {sensor.left()}", file=sys.stderr)
