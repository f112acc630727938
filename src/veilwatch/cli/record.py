"""`veilwatch record`: a network interface to a capture file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from veilwatch.cli.live import (
    DEFAULTS,
    Duration,
    RingMb,
    Snaplen,
    User,
    drop,
    prepare_drop,
    stopped_by_signals,
    summary,
)
from veilwatch.cli.outputs import Force, check_output, leaving, output_option
from veilwatch.cli.terminal import Quiet, remark, working
from veilwatch.errors import OutputError
from veilwatch.schema.packets import RawBlock
from veilwatch.traffic.capture import PcapngWriter
from veilwatch.traffic.capture.live import LiveSettings, open_live

SUFFIX: Final = ".pcapng"


def command(
    interface: Annotated[
        str, typer.Option("--interface", "-i", metavar="IF", help="Network interface to record.")
    ],
    output: Annotated[Path, output_option("FILE.pcapng", "Where to write.")],
    duration: Duration = None,
    ring_mb: RingMb = DEFAULTS.ring_mb,
    snaplen: Snaplen = DEFAULTS.snaplen,
    user: User = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write what an interface receives, until Ctrl-C or SIGTERM; nothing is sent on it.

    Example: `veilwatch record -i eth1 -o n3.pcapng --duration 60`
    """
    if output.suffix.lower() != SUFFIX:
        raise OutputError("recordings are pcapng", where=output, hint=f"name a {SUFFIX} file")
    check_output(output, force=force)
    settings = LiveSettings(ring_mb=ring_mb, snaplen=snaplen)
    prepare_drop(user)
    with (
        working(quiet) as progress,
        leaving(output),
        open_live(interface, settings, duration_s=duration, progress=progress) as capture,
    ):
        drop(user, progress)
        (report,) = capture.report.files
        with (
            PcapngWriter(output, link=report.interfaces[0], interface_name=interface) as writer,
            stopped_by_signals(capture.stop),
        ):
            for block in capture:
                _write(writer, block)
    remark(summary(report), quiet=quiet)
    remark(f"{report.packets:,} packets in {output}", quiet=quiet)


def _write(writer: PcapngWriter, block: RawBlock) -> None:
    columns = (block.records[name].tolist() for name in ("ts_ns", "offset", "captured", "length"))
    for ts_ns, offset, captured, length in zip(*columns, strict=True):
        writer.write(ts_ns, block.buffer[offset : offset + captured].tobytes(), length)
