"""The sensor under rehearsal: its configuration, its process, and what it says of itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from rehearsal.network import SPAN, Network
from rehearsal.traffic import LOAD_NETWORKS

READY_S: Final = 180.0
"""How long a start may take; with a cold cache kernels are compiled first."""

END_S: Final = 95.0
"""How long it may take to end; systemd waits 90 s."""

SAMPLE_S: Final = 1.0

CONFIG: Final = """\
# Everything that is not named here is as `veilwatch config init` writes it.
[sensor]
name = "rehearsal"
state = "{state}"

[capture]
interfaces = ["{interface}"]
emulated = {emulated}

[model]
path = "{model}"

[[alerts.maintenance]]
reason = "load of a rehearsal, whose times are not its own"
ends = 2100-01-01
hosts = {load}

[archive]
keep_free_gb = 0

[sinks]
urls = {urls}

[metrics]
listen = "127.0.0.1:0"
"""


class Sensor:
    """`veilwatch watch` in the sensor's namespace, sampled once a second.

    Attributes
    ----------
    samples
        Status documents with the second at which they were read.
    """

    def __init__(
        self, network: Network, folder: Path, *, model: Path, urls: list[str], emulated: bool
    ) -> None:
        self._network = network
        self.state = folder / "state"
        self.config = folder / "sensor.toml"
        self.config.write_text(
            CONFIG.format(
                state=self.state,
                interface=SPAN,
                emulated=str(emulated).lower(),
                model=model.resolve(),
                urls=json.dumps(urls),
                load=json.dumps(LOAD_NETWORKS),
            )
        )
        self.log = folder / "sensor.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.samples: list[tuple[float, dict[str, Any]]] = []
        self._sampled_s = 0.0

    def __enter__(self) -> Sensor:
        words = [sys.executable, "-m", "veilwatch", "watch", "--config", str(self.config)]
        with self.log.open("w") as stream:
            self._process = subprocess.Popen(
                self._network.command("sensor", *words), stdout=stream, stderr=stream
            )
        deadline = time.monotonic() + READY_S
        # Packets are counted from the first on, so the ring is open when something is sent.
        while not (self.status().get("healthy") and "packets" in self._ingest()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                last = self.log.read_text(errors="replace").strip().splitlines()[-3:]
                raise OSError("the sensor did not start: " + " | ".join(last))
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def exit_code(self) -> int | None:
        """Return how the sensor ended, None while it runs."""
        return self._process.poll() if self._process else None

    def status(self) -> dict[str, Any]:
        """Return what it last said."""
        try:
            found: dict[str, Any] = json.loads((self.state / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def _ingest(self) -> dict[str, Any]:
        return dict(self.status().get("children", {}).get("ingest-0", {}))

    def sample(self, at_s: float) -> None:
        """Note the status, at most once a second."""
        if time.monotonic() - self._sampled_s >= SAMPLE_S:
            self._sampled_s = time.monotonic()
            self.samples.append((round(at_s, 1), self.status()))

    def kill(self, child: str) -> bool:
        """Kill one of its processes as a crash would; return whether it was there."""
        pid = self.status().get("children", {}).get(child, {}).get("pid")
        if not pid:
            return False
        os.kill(pid, signal.SIGKILL)
        return True
