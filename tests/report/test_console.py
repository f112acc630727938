"""The console summary says the verdict and never obeys a captured name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.report import factory
from tests.report.test_document import document
from veilwatch.report.detection.console import print_summary


def printed(scene: factory.Scene, width: int = 100, **options: Any) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system="truecolor")
    print_summary(document(scene), console, **options)
    return stream.getvalue()


def plain(scene: factory.Scene, **options: Any) -> str:
    stream = io.StringIO()
    print_summary(document(scene), Console(file=stream, width=200), **options)
    return stream.getvalue()


def test_summary_of_a_usual_run() -> None:
    scene = factory.scene()
    text = plain(scene, outputs={"report": Path("out/report.html")})
    assert "3 of 29 hosts show traffic like malware." in text and "out/report.html" in text
    assert "Emulated traffic" in text.splitlines()[1]
    for alert in scene.alerts[:3]:
        assert alert.host in text
    assert "312 because it is no IP packet" in text and "cut inside the record at offset 24" in text


def test_hostile_names_change_nothing_on_the_terminal() -> None:
    scene = factory.scene(hostile=True, infected_hosts=11)
    top = [alert for alert in scene.alerts if alert.kind == "flow"][:5]
    names = iter(factory.HOSTILE_NAMES)
    import dataclasses

    scene.alerts = [
        dataclasses.replace(alert, application=next(names), family="[blink]x[/blink]")
        for alert in top
    ]
    styled, bare = printed(scene, width=200), plain(scene)
    assert "[red]bold[/red] [link=http://evil.example]x[/link]" in bare
    assert "\u202e" not in styled and "\x1b[31mred" not in styled and "\x1b]8" not in styled
    assert r"two\nlines\r\nand\ttabs" in bare


@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_width_and_every_run(width: int) -> None:
    for scene in (factory.scene(infected_hosts=2), factory.scene(alerts=False)):
        assert printed(scene, width)
    assert "No packet could be read" in plain(factory.empty_scene())
