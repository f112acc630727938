"""`veilwatch flows`: captures, or an interface, to a flow table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from veilwatch.cli import live, reading
from veilwatch.cli.options import (
    DEFAULTS,
    ActiveTimeout,
    CapturesOrInterface,
    GtpPorts,
    IdleTimeout,
    MaxFlows,
    SubscriberKeyFile,
    SubscriberRotation,
    key_ring,
)
from veilwatch.cli.outputs import STDOUT, Force, check_output, leaving, output_option
from veilwatch.cli.terminal import Quiet, remark, working
from veilwatch.export.flow_writer import FlowWriter
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.subscriber import Rotation


def command(
    output: Annotated[
        Path,
        output_option(
            "FILE",
            "FILE.parquet, .csv, .jsonl, or a Zeek conn.log: FILE.log, FILE.log.json; "
            "- writes CSV to standard output.",
        ),
    ],
    captures: CapturesOrInterface = None,
    interface: live.Interface = None,
    duration: live.Duration = None,
    ring_mb: live.RingMb = live.DEFAULTS.ring_mb,
    snaplen: live.Snaplen = live.DEFAULTS.snaplen,
    workers: live.Workers = 1,
    user: live.User = None,
    idle_timeout: IdleTimeout = DEFAULTS.idle_timeout_s,
    active_timeout: ActiveTimeout = DEFAULTS.active_timeout_s,
    max_flows: MaxFlows = DEFAULTS.max_flows,
    gtp_port: GtpPorts = None,
    subscriber_key_file: SubscriberKeyFile = None,
    subscriber_rotation: SubscriberRotation = Rotation.NONE,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write one row for each flow. Columns: docs/flows.md; forms: docs/export.md.

    Example: `veilwatch flows n3.pcapng -o flows.parquet`
    """
    options = live.LiveOptions(interface, duration, ring_mb, snaplen, workers, user)
    options.check(captures)
    check_output(output, force=force)
    config = MeterConfig(
        idle_timeout_s=idle_timeout, active_timeout_s=active_timeout, max_flows=max_flows
    )
    count = 0
    with (
        working(quiet) as progress,
        live.open_reader(
            captures,
            options,
            config=config,
            gtp_ports=gtp_port or (),
            subscriber_keys=key_ring(subscriber_key_file, subscriber_rotation),
            progress=progress,
        ) as reader,
        leaving(output),
        FlowWriter(output) as writer,
    ):
        for table in reader:
            writer.write(table.frame)
            count += len(table)
    reading.say(reader.captures, reader.balance, quiet=quiet)
    for report in reader.captures.files:
        if report.live is not None:
            remark(live.summary(report), quiet=quiet)
    place = "standard output" if output == STDOUT else output
    packets = reader.captures.packets
    remark(f"{count:,} flows from {packets:,} packets in {place}", quiet=quiet)
    reading.settle(reader.captures, reader.balance)
