"""Kernels against the reference on real captures of every link type, broken ones included."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.traffic.decode.frames import assert_as_reference
from veilwatch.errors import CaptureError
from veilwatch.schema.packets import Status
from veilwatch.traffic.capture import open_captures
from veilwatch.traffic.decode import Decoder

EVERY = 6
"""One capture in so many is read here: the reference takes ten seconds for all of them."""


@pytest.mark.corpus
def test_hostile_captures_agree_with_the_reference(corpus_path: Path) -> None:
    # Arrange
    files = sorted(p for p in (corpus_path / "hostile").rglob("*") if p.suffix != ".csv")
    decoder = Decoder()
    read = 0

    # Act
    for path in [p for p in files if p.is_file()][::EVERY]:
        try:
            stream = open_captures([path])
        except CaptureError:  # not a capture: the business of `capture`
            continue
        with stream:
            for block in stream:
                assert_as_reference(block, decoder)
                read += len(block)

    # Assert
    assert read > 5_000
    assert decoder.balance["packets_read"] == read
    assert sum(decoder.balance[status.name] for status in Status) == read
