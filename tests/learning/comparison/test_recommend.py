"""Nothing is recommended that the figures do not carry."""

from __future__ import annotations

import pytest

from veilwatch.learning.comparison.document import (
    ClassFigures,
    Confusion,
    Cost,
    DetectorResult,
    Gate,
    Interval,
    Level,
    SplitResult,
)
from veilwatch.learning.comparison.recommend import recommend
from veilwatch.learning.evaluation.calibration import supported_rate

PASSED = Gate(name="leaks, split by group", passed=True, text="")
FAILED = Gate(name="shortcuts", passed=False, text="METADATA ALONE SEPARATES THE CLASSES")


def level(found: float, benign: int) -> Level:
    rate = Interval(value=found, low=found - 0.02, high=found)
    return Level(
        positives=50,
        negatives=benign,
        folds=2,
        roc_auc=rate,
        average_precision=found,
        detection_rate_at_fpr=dict.fromkeys(("0.01", "0.001", "0.0001"), rate),
        supported_false_positive_rate=supported_rate(benign),
        accuracy=found,
        malicious=ClassFigures(precision=1, recall=found, f1=found),
        benign=ClassFigures(precision=1, recall=1, f1=1),
        confusion=Confusion(
            true_positive=48, false_negative=2, false_positive=0, true_negative=benign
        ),
        calibration=None,
        roc=[],
        precision_recall=[],
    )


def detector(
    found: float, captures: int, flows: int = 5000, split: str = "group", **levels: Level
) -> DetectorResult:
    levels = levels or {"flow_tls": level(found, flows), "capture": level(found, captures)}
    result = SplitResult(
        levels=levels, without_background={}, families={}, benign_kinds={}, benign_blends={}
    )
    cost = Cost(train_seconds=1, train_cpu_seconds=1, peak_memory=1, units_per_second=1000, bytes=1)
    return DetectorResult(
        name="lightgbm",
        unit="flow",
        splits={split: result},
        cost=cost,
        importance={},
        robustness={},
    )


def test_what_reaches_the_bar_on_enough_captures_is_recommended() -> None:
    found = recommend([detector(0.98, 300)], [PASSED], emulated=False)
    assert (found.verdict, found.blocked) == ("deploy", [])
    assert found.text.startswith("Deploy lightgbm") and found.text.endswith("what was asked for.")


def on_used_hosts(used: float, captures: float, name: str) -> DetectorResult:
    found = detector(
        0,
        0,
        flow_tls=level(0.98, 5000),
        capture_with_windows=level(captures, 400),
        used_host_x1=level(used, 400),
    )
    return found.model_copy(update={"name": name})


def test_used_hosts_decide_where_they_were_judged() -> None:
    alone = detector(0, 0, capture=level(0.99, 400)).model_copy(update={"name": "words"})
    rivals = [on_used_hosts(0.6, 0.99, "diluted"), on_used_hosts(0.9, 0.97, "strong"), alone]
    found = recommend(rivals, [PASSED], emulated=False)
    assert (found.detector, found.verdict) == ("strong", "deploy")
    assert "0.900 (0.880 to 0.900) of malicious captures on hosts that people use" in found.text
    assert "Not judged on used hosts: words." in found.text
    found = recommend(rivals[:1], [PASSED], emulated=False)
    assert found.verdict == "below"
    assert "Missed: used hosts x1 (merged captures) 0.600 of 0.85." in found.text


def test_what_does_not_reach_it_is_below() -> None:
    found = recommend([detector(0.5, 300)], [PASSED], emulated=True)
    assert found.verdict == "below" and "Use it to rank hosts" in found.text
    assert "emulated" in found.text


@pytest.mark.parametrize(
    ("result", "gates", "why"),
    [
        (detector(0.99, 6), [PASSED], "6 benign captures cannot show a false-positive rate of 1 %"),
        (detector(0.99, 1), [PASSED], "1 benign capture cannot show"),
        (detector(0.99, 299), [PASSED], "299 benign captures"),
        (detector(0.99, 400, flows=120), [PASSED], "120 benign encrypted flows"),
        (detector(0.99, 400), [PASSED, FAILED], 'The gate "shortcuts" failed.'),
        (detector(0.99, 400, split="flow"), [PASSED], "split of single flows"),
        (detector(0.99, 0, flow_tls=level(0.99, 900)), [PASSED], "judged on whole captures"),
        (detector(0.3, 6), [FAILED], 'The gate "shortcuts" failed.'),
        # What decides in the field is what counts.
        (
            detector(0, 0, capture=level(0.99, 400), capture_with_windows=level(0.99, 40)),
            [PASSED],
            "40 benign captures",
        ),
    ],
)
def test_nothing_is_recommended_that_the_figures_do_not_carry(
    result: DetectorResult, gates: list[Gate], why: str
) -> None:
    found = recommend([result], gates, emulated=False)
    assert found.verdict == "blocked" and any(why in line for line in found.blocked)
    assert why in found.text
    for promise in ("Deploy", "reaches what was asked for", "Use it"):
        assert promise not in found.text
    assert "recommended" in found.text
