"""`veilwatch esm`: the feed to SecBuzzer ESM."""

from __future__ import annotations

import socket
from typing import Annotated

import typer
from rich.text import Text

from veilwatch.cli.terminal import Quiet, console
from veilwatch.errors import VeilwatchError
from veilwatch.sinks.check import check_esm

app = typer.Typer(help="The feed to SecBuzzer ESM.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def check(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="secbuzzer+unix:///…/eve.socket, secbuzzer+file:///… or secbuzzer+http://…:19200",
            show_default=False,
        ),
    ],
    quiet: Quiet = False,
) -> None:
    """Send a marked test event and tell what arrived and what is misconfigured.

    Example: `veilwatch esm check secbuzzer+unix:///opt/cyfoundry/logs/suricata/eve.socket`
    """
    result = check_esm(url, socket.gethostname())
    if not quiet:
        for finding in result.findings:
            mark, style = ("wrong", "red") if finding.wrong else ("ok", "green")
            console.print(Text(f"{mark:>10}  ", style=style) + Text(finding.what), soft_wrap=True)
        for name, value in (
            ("event", result.event_id),
            ("signature", str(result.signature_id)),
            ("index", result.index),
            ("@timestamp", result.timestamp),
        ):
            console.print(f"{name:>10}  {value}", markup=False, highlight=False, soft_wrap=True)
    if result.wrong is not None:
        raise VeilwatchError(result.wrong.what, hint=result.wrong.hint)
