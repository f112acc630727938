"""Children for supervisors of tests: functions that another process can import.

What stands here loads little, as every child of a test begins with it.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from veilwatch.sensor.supervise import Heart


def note(path: Path, **said: Any) -> None:
    """Append one JSON line."""
    with path.open("a") as stream:
        stream.write(json.dumps(said) + "\n")


def notes(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def worker(heart: Heart, path: Path, name: str) -> None:
    """Live until told to end, and say so."""
    note(path, name=name, what="began", pid=os.getpid())
    status = {"count": 0}
    while not heart.stopping:
        heart.beat(status.copy)
        status["count"] += 1
        if heart.take_reload():
            note(path, name=name, what="reloaded")
        time.sleep(0.01)
    note(path, name=name, what="ended", pid=os.getpid())


def crasher(heart: Heart, path: Path) -> None:
    note(path, what="crashed", at=time.monotonic())
    raise SystemExit(3)


def hanger(heart: Heart, path: Path) -> None:
    note(path, what="hung", at=time.monotonic())
    heart.say({})
    time.sleep(600)


def busy(heart: Heart, path: Path, seconds: float) -> None:
    """Do one thing that takes long, and end."""
    heart.say({})
    with heart.busy():
        time.sleep(seconds)
    note(path, what="done")


def orphan(heart: Heart, path: Path) -> None:
    """Go on beside a thread that dies of what nobody expected."""
    heart.say({})
    nothing: dict[str, int] = {}
    threading.Thread(target=lambda: nothing["missing"], name="helper").start()
    while not heart.stopping:
        heart.beat()
        time.sleep(0.01)


def wrong(heart: Heart, path: Path) -> None:
    heart.say({})
    raise IndexError("out of\nbounds")


def deaf(heart: Heart, path: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(path, what="deaf")
    while True:
        heart.beat()
        time.sleep(0.01)


def short(heart: Heart, path: Path) -> None:
    heart.say({"done": 7})
