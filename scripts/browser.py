"""Headless Chromium by the DevTools protocol, for pictures of pages and tests of their layout.

The protocol runs over two pipes (`--remote-debugging-pipe`: JSON messages that end in NUL), so that
it takes neither a port nor a library: https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

PATIENCE_S: Final = 60.0
"""How long one answer may take: a page of some megabytes on a busy machine takes seconds."""

_QUIET: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
)


class BrowserError(RuntimeError):
    """The browser ended, did not answer, or refused a command."""


def find_browser() -> str | None:
    """Return the path of Chromium, or None where this machine has none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One headless browser with one page.

    Parameters
    ----------
    executable
        Path of Chromium.
    """

    def __init__(self, executable: str) -> None:
        # The browser takes commands from file descriptor 3 and answers on 4.
        theirs_in, self._write = _pipe()
        self._read, theirs_out = _pipe()
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._buffer = bytearray()
        self._number = 0
        self.events: list[dict[str, Any]] = []
        self._pid = os.posix_spawn(
            executable,
            [executable, *_QUIET, f"--user-data-dir={self._profile.name}", "about:blank"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                (os.POSIX_SPAWN_DUP2, theirs_out, 4),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._session = ""
        try:
            target = self.ask("Target.createTarget", url="about:blank")["targetId"]
            attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Network", "Log", "Runtime"):
                self.ask(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and what it started."""
        for end in (self._read, self._write):
            os.close(end)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._profile.cleanup()

    def ask(self, method: str, /, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result; events that come meanwhile are kept.

        Raises
        ------
        BrowserError
            If the browser refuses it, ends, or does not answer in time.
        """
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end_s = time.monotonic() + PATIENCE_S
        while True:
            answer = self._receive(end_s)
            if answer.get("id") != self._number:
                self.events.append(answer)
            elif "error" in answer:
                raise BrowserError(f"{method}: {answer['error'].get('message')}")
            else:
                return dict(answer["result"])

    def show(
        self, page: Path, width: int, *, height: int = 900, dark: bool = False, medium: str = ""
    ) -> None:
        """Open a page in a window of exactly that size.

        Parameters
        ----------
        page
            A file.
        width, height
            CSS pixels of the viewport.
        dark
            Whether the reader prefers dark colours.
        medium
            `print` for the look on paper.
        """
        self.events.clear()
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=medium, features=[scheme])
        self.ask("Page.navigate", url=page.resolve().as_uri())
        end_s = time.monotonic() + PATIENCE_S
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive(end_s))

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def picture(self, to: Path, *, top: int = 0, height: int | None = None) -> None:
        """Write what is shown, from `top` on, as PNG; the whole page without `height`."""
        width, whole = self.value("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": top, "width": width, "height": height or whole - top, "scale": 1}
        answer = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        to.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self, to: Path) -> None:
        """Write what a printer would give, on A4."""
        answer = self.ask(
            "Page.printToPDF",
            printBackground=True,
            preferCSSPageSize=True,
            paperWidth=210 / 25.4,
            paperHeight=297 / 25.4,
        )
        to.write_bytes(base64.b64decode(answer["data"]))

    def complaints(self) -> list[str]:
        """Return errors of the console, exceptions, and whatever was asked for over a network."""
        found = []
        for event in self.events:
            method, told = event.get("method"), event.get("params", {})
            if method == "Log.entryAdded" and told["entry"]["level"] in ("warning", "error"):
                found.append(str(told["entry"]["text"]))
            elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                found.append(json.dumps(told)[:400])
            elif method == "Network.requestWillBeSent":
                url = told["request"]["url"]
                if not (url.startswith("file:") and told.get("type") == "Document"):
                    found.append(f"asked for {url}")
        return found

    def _receive(self, end_s: float) -> dict[str, Any]:
        while (end := self._buffer.find(b"\0")) < 0:
            left = end_s - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise BrowserError(f"no answer within {PATIENCE_S:.0f} s")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise BrowserError("the browser ended")
            self._buffer += part
        message = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        return dict(message)


def _pipe() -> Sequence[int]:
    """Return the ends of a pipe, both above the numbers that the browser expects its own at."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return ends
