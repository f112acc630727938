"""What the verbs share that may read a network interface."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any, Final

import typer

from veilwatch.cli.times import duration_option
from veilwatch.errors import CaptureError
from veilwatch.progress import Progress
from veilwatch.schema.captures import FileReport
from veilwatch.schema.packets import MAX_CAPTURED
from veilwatch.traffic.capture.live import MAX_WORKERS, LiveCapture, LiveSettings, open_taps
from veilwatch.traffic.capture.live.options import MAX_RING_MB, MIN_SNAPLEN
from veilwatch.traffic.capture.live.privileges import default_user, drop_privileges
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.pipeline import FlowReader, ParallelReader, settle
from veilwatch.traffic.pipeline.warm import prepare
from veilwatch.traffic.subscriber import KeyRing

DEFAULTS: Final = LiveSettings()

Interface = Annotated[
    str | None,
    typer.Option(
        "--interface",
        "-i",
        metavar="IF",
        help="Read this network interface instead of captures, until Ctrl-C or SIGTERM.",
        show_default=False,
    ),
]

Duration = Annotated[
    float | None,
    duration_option(help_text="Listen for so long only: 60, 90s, 24h.", show_default=False),
]

RingMb = Annotated[
    int,
    typer.Option(
        min=1, max=MAX_RING_MB, help="MiB of packets that may wait in each worker's ring."
    ),
]

Snaplen = Annotated[
    int,
    typer.Option(min=MIN_SNAPLEN, max=MAX_CAPTURED, help="Most bytes captured of a packet."),
]

Workers = Annotated[
    int,
    typer.Option(
        min=1, max=MAX_WORKERS, help="Processes that share the interface by subscriber addresses."
    ),
]

User = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="User to become once the interface is open; with sudo its caller by default.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """The options of a verb that concern a network interface."""

    interface: str | None = None
    duration: float | None = None
    ring_mb: int = DEFAULTS.ring_mb
    snaplen: int = DEFAULTS.snaplen
    workers: int = 1
    user: str | None = None

    def check(self, captures: Sequence[str] | None) -> None:
        """Make sure that there is one input, captures or an interface.

        Raises
        ------
        CaptureError
            If there are both or none, or options of an interface without one.
        """
        if self.interface is None:
            if not captures:
                raise CaptureError(
                    "nothing to read", hint="name captures, or a network interface with -i"
                )
            if self != LiveOptions():
                raise CaptureError(
                    "--duration, --ring-mb, --snaplen, --workers and --user are for an interface",
                    hint="name one with -i, or leave them out",
                )
        elif captures:
            raise CaptureError(
                "captures and a network interface at once", hint="leave one of them out"
            )

    @property
    def settings(self) -> LiveSettings:
        """How to capture."""
        return LiveSettings(ring_mb=self.ring_mb, snaplen=self.snaplen)


@contextmanager
def open_reader(
    captures: Sequence[str] | None,
    live: LiveOptions,
    *,
    config: MeterConfig,
    gtp_ports: Sequence[int],
    subscriber_keys: KeyRing,
    progress: Progress,
) -> Iterator[FlowReader | ParallelReader]:
    """Open what gives flow tables: captures, or an interface read by one process or by several."""
    common: dict[str, Any] = {
        "config": config,
        "gtp_ports": gtp_ports,
        "subscriber_keys": subscriber_keys,
    }
    if live.interface is None:
        with FlowReader(captures or (), **common, progress=progress) as files:
            yield files
        return
    prepare_drop(live.user)
    taps = open_taps(live.interface, live.settings, count=live.workers, gtp_ports=gtp_ports)
    if live.workers == 1:
        drop(live.user, progress)
        capture = LiveCapture(taps[0], duration_s=live.duration, progress=progress)
        with FlowReader(capture, **common) as reader, stopped_by_signals(capture.stop):
            yield reader
        return
    user = live.user or default_user()
    common |= {"duration_s": live.duration, "user": user, "progress": progress}
    with ParallelReader(taps, **common) as parallel, stopped_by_signals(parallel.stop):
        _note(drop_privileges(user), progress)
        yield parallel


def prepare_drop(user: str | None) -> None:
    """Load what could not be loaded after `drop`; to be called before an interface is opened."""
    prepare(user or default_user())


def drop(user: str | None, progress: Progress) -> None:
    """Become the user that was named, or who called sudo."""
    _note(settle(user or default_user()), progress)


def _note(message: str, progress: Progress) -> None:
    if message:
        progress.note(message)


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on the first Ctrl-C or SIGTERM; a second one ends the program at once."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def heed(number: int, frame: FrameType | None) -> None:
        restore()
        stop()

    for number in signals:
        signal.signal(number, heed)
    try:
        yield
    finally:
        restore()


def summary(report: FileReport) -> str:
    """Say in one line how a live capture went."""
    live = report.live
    assert live is not None
    ring = f"ring of {live.ring_bytes // 2**20:,} MiB" if live.ring_bytes else "no ring"
    return (
        f"{report.name}: {live.received:,} packets received, {live.dropped:,} dropped by the "
        f"kernel, {live.freezes:,} freezes, {live.interruptions:,} interruptions ({ring}, first "
        f"{live.snaplen:,} bytes of a packet)"
    )
