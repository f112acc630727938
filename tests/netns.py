"""Network namespaces with a pair of virtual interfaces, for tests that capture live.

Nothing outside a namespace made here is touched, and it is deleted at the end.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


class Wire:
    """A namespace in which what is sent on `near` arrives on `far`."""

    near = "near"
    far = "far"

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, *words: str | Path) -> list[str]:
        """Return a command line that runs inside the namespace."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def run(self, *words: str | Path) -> str:
        """Run a command inside the namespace and return what it prints."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start a command inside the namespace."""
        return subprocess.Popen(
            self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def veilwatch(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start the command line inside the namespace."""
        return self.start(sys.executable, "-m", "veilwatch", *words)

    def replay(self, capture: Path, *options: str) -> None:
        """Send a capture on `near`."""
        self.run("tcpreplay", "-q", "-i", self.near, *options, capture)

    def transmitted(self) -> int:
        """Return how many packets `far` has sent."""
        return int(self.run("cat", f"/sys/class/net/{self.far}/statistics/tx_packets"))

    def silence(self, interface: str) -> None:
        """Keep an interface from configuring IPv6, which would send on it."""
        switch = f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"
        self.run("sh", "-c", f"[ ! -e {switch} ] || echo 1 > {switch}")

    def connect(self) -> None:
        """Make the pair, silent by itself: no addresses, no IPv6, and up."""
        self.run("ip", "link", "add", self.near, "type", "veth", "peer", "name", self.far)
        for interface in (self.near, self.far):
            self.silence(interface)
            self.run("ip", "link", "set", interface, "mtu", "9000", "up")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have this thread live in the namespace."""
        with Path("/proc/thread-self/ns/net").open() as home:
            with Path("/run/netns", self.name).open() as target:
                assert _libc.setns(target.fileno(), _CLONE_NEWNET) == 0
            try:
                yield
            finally:
                assert _libc.setns(home.fileno(), _CLONE_NEWNET) == 0


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A namespace with a connected pair; the test is skipped where that cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for program in ("ip", "tcpreplay"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    name = f"veilwatch-{os.getpid()}-{next(_numbers)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no network namespace can be made: {made.stderr.strip()}")
    try:
        there = Wire(name)
        there.silence("default")
        there.connect()
        yield there
    finally:
        with suppress(OSError):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
