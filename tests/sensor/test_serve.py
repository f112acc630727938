"""The scoring loop by itself: what is handed over, reloading, and a hand-over that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.learning.features.factory import random_flows
from tests.learning.training.factory import make_model
from tests.sensor.stubs import StubHeart, stand_in
from veilwatch.detection.scoring.live import LiveScorer
from veilwatch.errors import ModelError
from veilwatch.learning.models import Model
from veilwatch.sensor.link import Inbox, Kind, Outbox, Sender
from veilwatch.sensor.serve import Scored, serve


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("corpus"))[0]


def served(
    model: Model, place: Path, outbox: Outbox, hand_over: Callable[[Scored], None], **options: Any
) -> StubHeart:
    """Serve until everything that waits was handed over."""
    heart = StubHeart()
    sender = Sender(outbox, place, 1)
    sender.start()
    with Inbox(place) as inbox:

        def idle() -> None:
            heart.stopping = outbox.is_empty

        options = {"idle": idle} | options
        serve(stand_in(heart), inbox, LiveScorer(model), hand_over, **options)
    sender.finish(0.0)
    return heart


def test_early_and_ended_are_handed_over_as_such(model: Model, tmp_path: Path) -> None:
    outbox, scored = Outbox(), list[Scored]()
    for kind, seed in ((Kind.EARLY, 1), (Kind.ENDED, 2)):
        outbox.offer(kind, random_flows(30, seed=seed), 0)
    heart = served(model, tmp_path / "s", outbox, scored.append)
    assert [one.early for one in scored] == [True, False]
    assert all("score" in one.scores.flows.columns for one in scored)
    assert (heart.said["early_rows"], heart.said["ended_rows"]) == (30, 30)
    assert heart.said["alerted_rows"] == sum(int(one.scores.flows["alert"].sum()) for one in scored)


def test_a_table_that_was_not_handed_over_comes_again(model: Model, tmp_path: Path) -> None:
    outbox, scored = Outbox(), list[Scored]()
    outbox.offer(Kind.ENDED, random_flows(5, seed=3), 0)

    def fail(one: Scored) -> None:
        raise RuntimeError("the disk is full")

    sender = Sender(outbox, tmp_path / "s", 1)
    sender.start()
    with Inbox(tmp_path / "s") as inbox, pytest.raises(RuntimeError):
        serve(stand_in(StubHeart()), inbox, LiveScorer(model), fail)
    assert outbox.rows == 5
    heart = StubHeart()
    with Inbox(tmp_path / "s") as inbox:

        def idle() -> None:
            heart.stopping = outbox.is_empty

        serve(stand_in(heart), inbox, LiveScorer(model), scored.append, idle=idle)
    assert [len(one.parcel.table) for one in scored] == [5]
    sender.finish(0.0)
    assert threading.active_count() < 20


def test_a_model_is_replaced_and_a_broken_one_is_not(model: Model, tmp_path: Path) -> None:
    outbox, notes, tries = Outbox(), list[str](), list[int]()
    heart = StubHeart()

    def load() -> Model:
        tries.append(1)
        if len(tries) == 1:
            raise ModelError("damaged", where="model")
        return model

    def hand_over(one: Scored) -> None:
        heart.told = True

    for seed in range(3):
        outbox.offer(Kind.ENDED, random_flows(5, seed=seed), 0)
    sender = Sender(outbox, tmp_path / "s", 1)
    sender.start()
    scorer = LiveScorer(model)
    with Inbox(tmp_path / "s") as inbox:

        def idle() -> None:
            heart.stopping = outbox.is_empty and len(tries) >= 2

        serve(
            *(stand_in(heart), inbox, scorer, hand_over),
            load=load,
            note=notes.append,
            idle=idle,
        )
    sender.finish(0.0)
    assert notes == ["the model was not replaced: model: damaged"]
    assert scorer.counters["replaced_models"] == len(tries) - 1 >= 1
    assert heart.said["ended_rows"] == 15
