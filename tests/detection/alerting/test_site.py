"""Thresholds of a site: what the quiet period supports, and nothing beyond it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from veilwatch.detection.alerting.site import (
    MAX_RATE,
    QuietPeriod,
    TopScores,
    apply_site,
    learn_thresholds,
    parse_site,
    site_text,
)
from veilwatch.errors import VeilwatchError
from veilwatch.learning.models.manifest import Thresholds
from veilwatch.schema.units import DAY_NS


def period(days: float) -> QuietPeriod:
    return QuietPeriod(name="first week of June", begins_ns=0, ends_ns=int(days * DAY_NS))


def scores(n: int, seed: int = 0, kept: int = 65_536) -> TopScores:
    top = TopScores(kept)
    draw = np.random.default_rng(seed)
    for part in np.array_split(draw.random(n), 7):
        top.add(part)
    return top


def test_the_target_is_met_on_the_days_that_follow() -> None:
    site = learn_thresholds(period(10), model="m1", target_per_day=5, units=scores(100_000))
    assert site.unit is not None and site.group is None
    assert site.unit.units_per_day == 10_000 and site.unit.rate == pytest.approx(5e-4)
    # About 50 of 100,000 passed, so the next days see about 5 of 10,000.
    assert 40 <= site.unit.passed <= 50
    later = np.random.default_rng(1).random(1_000_000)
    assert np.count_nonzero(later >= site.unit.threshold) / 100 == pytest.approx(5, rel=0.4)
    assert 5 <= site.unit.most_per_day < 7


def test_the_highest_scores_are_enough() -> None:
    few, all_of_them = scores(50_000, kept=200), scores(50_000)
    assert few.units == all_of_them.units == 50_000
    made = [
        learn_thresholds(period(10), model="m1", target_per_day=10, units=top)
        for top in (few, all_of_them)
    ]
    assert made[0] == made[1]
    with pytest.raises(VeilwatchError, match="scores that were kept"):
        learn_thresholds(period(10), model="m1", target_per_day=21, units=few)


@pytest.mark.parametrize(
    ("days", "target", "told"),
    [
        (2, 1, "rule of three it takes 3.0 days, or a target of 1.5"),
        (0.1, 5, "rule of three"),
        (0, 5, "no length"),
        (-1, 5, "no length"),
        (7, 0, "above 0"),
        (7, float("nan"), "above 0"),
    ],
)
def test_what_the_period_cannot_support_is_refused(days: float, target: float, told: str) -> None:
    with pytest.raises(VeilwatchError) as caught:
        learn_thresholds(period(days), model="m1", target_per_day=target, units=scores(10_000))
    assert told in str(caught.value)


@pytest.mark.parametrize("n", [0, 1, 18])
def test_too_few_units_are_refused(n: int) -> None:
    with pytest.raises(VeilwatchError):
        learn_thresholds(period(7), model="m1", target_per_day=10, groups=scores(n))


def test_few_hosts_are_not_all_made_alerts() -> None:
    site = learn_thresholds(period(7), model="m1", target_per_day=100, groups=scores(100))
    assert site.group is not None
    assert site.group.rate == MAX_RATE and site.group.passed <= 5


def test_equal_scores_do_not_pass_together() -> None:
    top = TopScores()
    top.add(np.r_[np.zeros(9_000), np.full(1_000, 0.7)])
    site = learn_thresholds(period(7), model="m1", target_per_day=1, units=top)
    assert site.unit is not None and site.unit.passed == 0 and site.unit.threshold > 0.7


def test_a_period_goes_on_after_a_restart() -> None:
    whole, before, after = TopScores(100), TopScores(100), TopScores(100)
    draw = np.random.default_rng(3).random(1000)
    whole.add(draw)
    before.add(draw[:400])
    after.restore(json.loads(json.dumps(before.state())))
    after.add(draw[400:])
    assert after.state() == whole.state()
    for state in ({}, {"units": "x", "highest": []}, {"units": 1, "highest": [None]}):
        with pytest.raises(VeilwatchError, match="damaged"):
            after.restore(state)
    assert after.state() == whole.state()


def test_scores_that_are_no_numbers_do_not_count() -> None:
    top = TopScores()
    top.add(np.array([np.nan, np.inf, 0.5], dtype=np.float32))
    assert (top.units, top.highest().tolist()) == (1, [0.5])


def test_short_periods_are_told() -> None:
    for days, words in ((0.5, "a day"), (3, "a week")):
        site = learn_thresholds(period(days), model="m", target_per_day=10, units=scores(9_000))
        assert words in site.cautions[0]
    site = learn_thresholds(period(7), model="m", target_per_day=10, units=scores(9_000))
    assert site.cautions == ()


def test_thresholds_go_to_a_file_and_take_the_place_of_the_models() -> None:
    site = learn_thresholds(
        period(7), model="m1", target_per_day=1, units=scores(20_000), groups=scores(2_000)
    )
    assert parse_site(site_text(site)) == site
    own = Thresholds(
        target_false_positive_rate=0.001,
        unit=0.1,
        group=0.2,
        upper_share=0.1,
        benign_units=5,
        benign_captures=1,
    )
    applied = apply_site(own, site, model="m1")
    assert site.unit and site.group
    assert (applied.unit, applied.group) == (site.unit.threshold, site.group.threshold)
    assert applied.upper_share == 0.1
    with pytest.raises(VeilwatchError, match="learned with model m1, not m2"):
        apply_site(own, site, model="m2")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}'])
def test_a_wrong_file_is_named(text: str) -> None:
    with pytest.raises(VeilwatchError) as caught:
        parse_site(text, "site.json")
    assert str(caught.value).startswith("site.json: not thresholds of a site")


def test_a_later_format_is_refused() -> None:
    site = learn_thresholds(period(7), model="m1", target_per_day=1, units=scores(20_000))
    with pytest.raises(VeilwatchError, match="format 2"):
        parse_site(site_text(site.model_copy(update={"format": 2})))
