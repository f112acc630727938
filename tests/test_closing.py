"""What a `with` block closes, finishes or abandons."""

from __future__ import annotations

import pytest

from veilwatch.closing import Closeable, Output


class Recorded(Output):
    """Notes what is done with it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def close(self) -> None:
        self.done.append("closed")

    def abandon(self) -> None:
        self.done.append("abandoned")


class Closed(Closeable):
    def __init__(self) -> None:
        self.times = 0

    def close(self) -> None:
        self.times += 1


def test_a_closeable_is_closed_however_its_block_ends() -> None:
    with Closed() as first:
        assert first.times == 0
    second = Closed()
    with pytest.raises(KeyError), second:
        raise KeyError
    assert (first.times, second.times) == (1, 1)


def test_an_output_is_finished_or_abandoned() -> None:
    with Recorded() as whole:
        pass
    broken = Recorded()
    with pytest.raises(KeyError), broken:
        raise KeyError
    assert (whole.done, broken.done) == (["closed"], ["abandoned"])
