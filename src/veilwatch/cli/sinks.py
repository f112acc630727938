"""`veilwatch sinks`: where events can be sent."""

from __future__ import annotations

import typer
from rich.text import Text

from veilwatch.cli.terminal import console
from veilwatch.sinks.base import SCHEMES, sink_class

app = typer.Typer(help="Where events can be sent.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command("list")
def list_() -> None:
    """Show every kind of sink, an example of its URL, and its parameters.

    Example: `veilwatch sinks list`
    """
    for name, scheme in SCHEMES.items():
        console.print(Text(f"{name}://", style="bold") + Text(f"  {scheme.what}"), soft_wrap=True)
        console.print(Text(f"    {scheme.example}"), soft_wrap=True)
        for parameter, meaning in sink_class(name).PARAMETERS.items():
            console.print(Text(f"    ?{parameter}=  {meaning}", style="dim"), soft_wrap=True)
