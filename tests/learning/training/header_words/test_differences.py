"""What a result says of how it differs from the published experiment."""

from __future__ import annotations

from tests.learning.training.factory import entry
from veilwatch.learning.training.header_words.differences import differences
from veilwatch.learning.training.header_words.sampling import choose_plan, merged

FULL = {"a": 88, "b": 53, "c": 49, "d": 40, "e": 40}


def test_numbers_that_shrank_are_told_and_all_benign_captures_too() -> None:
    entries = [
        entry(k, "malicious", family=name, group=f"{name}-{k}")
        for name, count in FULL.items()
        for k in range(count // 2)
    ]
    entries += [entry(k, "benign", group=f"benign-{k}") for k in range(22)]
    plan = choose_plan(entries, merged(entries, {}), scaled=True)
    assert plan.scale < 1
    said = differences(plan, {}, [])
    assert f"all numbers are {plan.scale:.2f} of the published ones" in said
    assert not any("made of" in sentence for sentence in said)
    assert len(set(said)) == len(said) and all(said)
