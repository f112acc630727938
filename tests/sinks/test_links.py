"""Files of sinks are files: neither links nor pipes that somebody has laid in their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.sinks.events import many
from veilwatch.sinks.base import open_sink
from veilwatch.sinks.lines import LineSink


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
@pytest.mark.parametrize("daily", [True, False])
def test_what_is_no_file_is_not_written_to(tmp_path: Path, kind: str, daily: bool) -> None:
    folder, other = tmp_path / "out", tmp_path / "other"
    folder.mkdir()
    if kind == "link":
        other.write_text("mine\n")
    url = f"eve+file://{folder}" + ("" if daily else "/eve.json")
    with open_sink(url) as sink:
        assert isinstance(sink, LineSink)
        place = sink.file()
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "folder":
            place.mkdir()
        else:
            place.symlink_to(other)
        receipt = sink.send(many(2))
        assert len(receipt.again) == 2 and not receipt.delivered
        assert other.exists() is (kind == "link")
        if kind == "link":
            assert other.read_text() == "mine\n"
            assert "it is a link" in receipt.again[0].reason
        # Once it is gone, all is well.
        if kind == "folder":
            place.rmdir()
        else:
            place.unlink()
        assert len(sink.send(many(2)).delivered) == 2
