"""`veilwatch doctor`: whether this machine is ready."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Annotated

import typer

from veilwatch import __version__
from veilwatch.cli.terminal import Quiet, console, working
from veilwatch.jit import cache_fault, cache_home, kernel_cache
from veilwatch.traffic.pipeline import is_warm


def command(
    warm: Annotated[bool, typer.Option("--warm", help="Compile the kernels now.")] = False,
    quiet: Quiet = False,
) -> None:
    """Show versions, cache and kernels; `--warm` compiles ahead of the first use.

    Example: `veilwatch doctor --warm`
    """
    if warm:
        with working(quiet):
            pass
    if quiet and warm:
        return
    free = shutil.disk_usage(_existing(cache_home())).free
    for name, value in (
        ("veilwatch", __version__),
        ("python", platform.python_version()),
        ("cores", str(os.cpu_count())),
        ("cache", f"{cache_home()} ({free / 1e9:,.1f} GB free)"),
        ("kernels", f"{kernel_cache()} ({_state()})"),
    ):
        console.print(f"{name:>10}  {value}", markup=False, highlight=False, soft_wrap=True)


def _state() -> str:
    if fault := cache_fault():
        return f"not kept: {fault}"
    return "ready" if is_warm() else "not compiled yet"


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
