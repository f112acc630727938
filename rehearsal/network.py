"""A gNB, a UPF, the switch between them with its mirror port, and the sensor host.

Each is a network namespace; nothing outside those made here is touched::

    gnb ── n3 ══ gnb0 ─┐ mirror ┌─ upf0 ══ n3 ── upf
     │                 └─ span0 ┘                 │
     └ dl ════════════════ ║ ════════════════ dl ─┘
                        mirror0 ── sensor

Whoever replays lives in `gnb` and has both ends in hand: uplink packets go out of `n3`, downlink
ones into `dl`, from which the UPF's namespace sends them out of its own `n3`. One process thus
keeps requests and answers in order, and yet each direction enters the switch from its own side.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

NAMESPACES: Final = ("gnb", "upf", "mirror", "sensor")

UPLINK: Final = "n3"
DOWNLINK: Final = "dl"
SPAN: Final = "mirror0"
"""The sensor's end of the mirror port."""

MTU: Final = 65_535
"""Most that a veth pair takes: captures hold frames that a network card put together."""

_WIRES: Final = (
    ("gnb", UPLINK, "mirror", "gnb0"),
    ("upf", UPLINK, "mirror", "upf0"),
    ("gnb", DOWNLINK, "upf", DOWNLINK),
    ("sensor", SPAN, "mirror", "span0"),
)

_REDIRECTS: Final = (
    ("mirror", "gnb0", ("mirror", "span0"), ("redirect", "upf0")),
    ("mirror", "upf0", ("mirror", "span0"), ("redirect", "gnb0")),
    ("upf", DOWNLINK, ("redirect", UPLINK)),
)
"""What becomes of each packet that comes in at an interface, by tc's mirred."""

_TIMEOUT_S: Final = 30.0
_CLONE_NEWNET: Final = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """The four namespaces; they are deleted when the block is left."""

    def __init__(self) -> None:
        self._prefix = f"rehearsal-{os.getpid()}-"

    def __enter__(self) -> Network:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def name(self, place: str) -> str:
        """Return the name of a namespace."""
        return self._prefix + place

    def command(self, place: str, *words: str | Path) -> list[str]:
        """Return a command line that runs inside a namespace."""
        return ["ip", "netns", "exec", self.name(place), *map(str, words)]

    def close(self) -> None:
        """Delete the namespaces, and with them the interfaces."""
        for place in NAMESPACES:
            if Path("/run/netns", self.name(place)).exists():
                _run(["ip", "netns", "delete", self.name(place)], check=False)

    def counters(self, place: str, interface: str) -> dict[str, int]:
        """Return packets received, sent and dropped by an interface."""
        said = _run(["ip", "-n", self.name(place), "-s", "-j", "link", "show", "dev", interface])
        stats = json.loads(said)[0]["stats64"]
        return {
            "received": stats["rx"]["packets"],
            "sent": stats["tx"]["packets"],
            "dropped": stats["rx"]["dropped"] + stats["tx"]["dropped"],
        }

    @contextmanager
    def entered(self, place: str) -> Iterator[None]:
        """Have this thread live in a namespace: sockets that it opens stay there."""
        with Path("/proc/thread-self/ns/net").open() as home:
            with Path("/run/netns", self.name(place)).open() as target:
                _enter(target.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def _make(self) -> None:
        for place in NAMESPACES:
            _run(["ip", "netns", "add", self.name(place)])
            # Interfaces that say nothing by themselves: each packet on the mirror is one replayed.
            _run(
                self.command(place, "tee", "/proc/sys/net/ipv6/conf/default/disable_ipv6"),
                text="1",
                check=False,
            )
            _run(["ip", "-n", self.name(place), "link", "set", "lo", "up"])
        for near, end, far, other in _WIRES:
            _run(
                [
                    *("ip", "link", "add", end, "netns", self.name(near), "mtu", str(MTU)),
                    *("type", "veth", "peer", "name", other),
                    *("netns", self.name(far), "mtu", str(MTU)),
                ]
            )
        for near, end, far, other in _WIRES:
            for place, interface in ((near, end), (far, other)):
                _run(["ip", "-n", self.name(place), "link", "set", interface, "up"])
        for place, interface, *actions in _REDIRECTS:
            self._redirect(place, interface, actions)

    def _redirect(self, place: str, interface: str, actions: Sequence[tuple[str, str]]) -> None:
        _run(self.command(place, "tc", "qdisc", "add", "dev", interface, "clsact"))
        words = ["tc", "filter", "add", "dev", interface, "ingress", "protocol", "all"]
        # u32 that compares nothing: it is in every kernel, where matchall may be left out.
        words += ["u32", "match", "u32", "0", "0"]
        for kind, target in actions:
            words += ["action", "mirred", "egress", kind, "dev", target]
            if kind == "mirror":
                words.append("pipe")
        _run(self.command(place, *words))


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "the namespace cannot be entered")


def _run(words: Sequence[str], *, text: str = "", check: bool = True) -> str:
    done: Any = subprocess.run(
        words, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if check and done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
    return str(done.stdout)
