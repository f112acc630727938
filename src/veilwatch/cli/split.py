"""`veilwatch split`: the packets of chosen flows as captures of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from veilwatch.cli import reading
from veilwatch.cli.options import DEFAULTS, ActiveTimeout, Captures, GtpPorts, IdleTimeout, MaxFlows
from veilwatch.cli.outputs import leaving, output_option
from veilwatch.cli.terminal import Quiet, console, remark, warn, warn_of_faults, working
from veilwatch.cli.times import duration_option
from veilwatch.errors import VeilwatchError
from veilwatch.report.listing import Listing, numbers, texts
from veilwatch.traffic.capture import Rotation
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.pipeline import Format, GroupBy, Selection, SplitConfig, SplitResult, split
from veilwatch.traffic.pipeline.split import DEFAULT_FILES, INDEX, MAX_FILES

SHOWN_FILES: Final = 20
"""Files listed on the console; `index.csv` has them all."""

MEGABYTE: Final = 1_000_000


def command(
    captures: Captures,
    output: Annotated[
        Path,
        output_option("DIR", "Folder for the files; it has to be new or empty."),
    ],
    by: Annotated[
        GroupBy,
        typer.Option(
            help="What has a file of its own. A host is who began the flow; an application is the "
            "service that the network shows."
        ),
    ] = GroupBy.ALL,
    flow_id: Annotated[
        list[int] | None,
        typer.Option(metavar="ID", help="Only this flow, as in the flow table or an alert."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Only flows from or to this (inner) address."),
    ] = None,
    service: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this service: tls, quic, dns, … or unknown."),
    ] = None,
    server_name: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only TLS to such a server: '*.example.com'."),
    ] = None,
    teid: Annotated[
        list[str] | None,
        typer.Option(metavar="TEID", help="Only this GTP-U tunnel, decimal or as 0x…"),
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            metavar="CONDITION",
            help="Only flows of which this holds: \"dst_port IN (443, 8443) AND tls_sni <> ''\". "
            "Columns: docs/flows.md; grammar: docs/export.md.",
        ),
    ] = "",
    decapsulate: Annotated[
        bool, typer.Option("--decapsulate", help="Write the innermost IP packets only.")
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="Form of the files.")] = Format.PCAPNG,
    rotate_mb: Annotated[
        float, typer.Option(min=0, help="Begin a new file at this many megabytes; 0: never.")
    ] = 0,
    rotate_s: Annotated[
        float,
        duration_option(
            "--rotate-s",
            help_text="Begin a new file at each multiple of so much packet time: 3600, 1h; "
            "0: never.",
            least=0.0,
        ),
    ] = 0,
    keep: Annotated[
        int, typer.Option(min=0, help="Keep this many rotated files of each; 0: all of them.")
    ] = 0,
    max_files: Annotated[
        int,
        typer.Option(min=1, max=MAX_FILES, help="Most files; what is left goes into 'other'."),
    ] = DEFAULT_FILES,
    idle_timeout: IdleTimeout = DEFAULTS.idle_timeout_s,
    active_timeout: ActiveTimeout = DEFAULTS.active_timeout_s,
    max_flows: MaxFlows = DEFAULTS.max_flows,
    gtp_port: GtpPorts = None,
    quiet: Quiet = False,
) -> None:
    """Take the packets of chosen flows out of captures, into a file for each of what you name.

    Options that choose may be given more than once; a flow must meet one of each kind. Timeouts
    and ports must be those of the run that the flow ids come from. See docs/export.md.

    Example: `veilwatch split n3.pcapng -o alert --flow-id 17 --decapsulate`
    """
    rotation = Rotation(int(rotate_mb * MEGABYTE), _whole_seconds(rotate_s), keep)
    if keep and not rotation:
        raise VeilwatchError(
            "nothing is rotated", where="--keep", hint="give --rotate-mb or --rotate-s as well"
        )
    config = SplitConfig(
        by=by,
        selection=Selection(
            flow_ids=tuple(flow_id or ()),
            hosts=tuple(host or ()),
            services=tuple(service or ()),
            server_names=tuple(server_name or ()),
            teids=tuple(map(_teid, teid or ())),
            where=where,
        ),
        decapsulate=decapsulate,
        form=form,
        rotation=rotation,
        max_files=max_files,
    )
    meter = MeterConfig(
        idle_timeout_s=idle_timeout, active_timeout_s=active_timeout, max_flows=max_flows
    )
    kept = f"files in {output} that a rotation had finished stay" if rotation else ""
    with working(quiet) as progress, leaving(kept=kept):
        result = split(
            captures, output, config, meter=meter, gtp_ports=gtp_port or (), progress=progress
        )
    _print(result, output, quiet)
    # Where every packet is written as it is, nothing has to be decoded.
    balance = result.balance if config.needs_flows or config.decapsulate else None
    if balance and (why := reading.nothing_decoded(result.captures, balance)):
        warn(why)
    if not result.written and config.selection:
        warn(f"no flow matches: {config.selection}")
    reading.settle(result.captures, balance)


def _whole_seconds(value: float) -> int:
    if value != int(value):
        raise VeilwatchError("no whole seconds", where="--rotate-s", hint="give 1s or more")
    return int(value)


def _teid(text: str) -> int:
    try:
        teid = int(text, 0)
    except ValueError:
        teid = -1
    if not 0 <= teid < 2**32:
        raise VeilwatchError("not a TEID", where=text, hint="give 32 bits, as in 0x1a2b or 6699")
    return teid


def _print(result: SplitResult, output: Path, quiet: bool) -> None:
    warn_of_faults(result.captures, quiet=quiet)
    if quiet:
        return
    table = Listing([*texts("file", "holds"), *numbers("packets")])
    for file in result.files[:SHOWN_FILES]:
        table.add(file.path.name, file.label, f"{file.packets:,}")
    if result.files:
        console.print(table)
    if len(result.files) > SHOWN_FILES:
        console.print(f"… and {len(result.files) - SHOWN_FILES:,} more, see {INDEX}")
    remark(
        f"{result.written:,} of {result.captures.packets:,} packets in {output}; "
        f"{result.without_flow:,} are part of no flow, {result.unwanted:,} of flows not chosen",
        quiet=quiet,
    )
