"""Which requests wait for their response, whatever the stamps of others say."""

from __future__ import annotations

import pytest

from veilwatch.traffic.subscriber.dialogue import LIFETIME_NS, Dialogues
from veilwatch.traffic.subscriber.messages import Message, Procedure, Protocol

SECOND = 10**9
START = 1_780_000_000 * SECOND
YEAR_2100 = 4_102_444_800 * SECOND
HOUR = 3600 * SECOND


def message(sequence: int, *, request: bool = True) -> Message:
    return Message(
        Protocol.PFCP,
        kind=50 if request else 51,
        request=request,
        procedure=Procedure.CREATE,
        sequence=sequence,
        context=0,
    )


def waiting(count: int) -> Dialogues:
    dialogues = Dialogues()
    for k in range(count):
        dialogues.ask(message(k), 1, 2, START + k * SECOND)
    return dialogues


@pytest.mark.parametrize("stamp", [YEAR_2100, START + HOUR, 0])
@pytest.mark.parametrize("asks", [True, False])
def test_one_wrong_stamp_gives_up_no_request_of_others(stamp: int, asks: bool) -> None:
    dialogues = waiting(10)
    if asks:
        dialogues.ask(message(99), 3, 4, stamp)
    else:
        dialogues.answer(message(99, request=False), 3, 4, stamp)
    dialogues.ask(message(10), 1, 2, START + 10 * SECOND)
    for k in range(11):
        answer = message(k, request=False)
        assert dialogues.answer(answer, 2, 1, START + 11 * SECOND) is not None, k
    assert dialogues.unanswered == 0


def test_a_clock_that_was_truly_set_gives_up_what_waits() -> None:
    dialogues = waiting(3)
    for k in range(100, 110):
        dialogues.ask(message(k), 1, 2, START + HOUR + k * SECOND)
    assert dialogues.unanswered == 3


def test_a_request_waits_no_longer_than_its_life() -> None:
    dialogues = waiting(1)
    late = START + LIFETIME_NS + 1
    assert dialogues.answer(message(0, request=False), 2, 1, late) is None
    assert dialogues.unanswered == 1
