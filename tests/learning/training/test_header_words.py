"""The published experiment: its numbers, its draws, its verdicts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.known import known
from tests.learning.features.factory import random_headers
from tests.learning.training.factory import entry
from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.errors import TrainingError
from veilwatch.learning.training.header_words import ReproduceOptions, experiment, reproduce
from veilwatch.learning.training.header_words.differences import differences
from veilwatch.learning.training.header_words.document import (
    PUBLISHED,
    Reproduction,
    Run,
    figures,
    median_accuracy,
)
from veilwatch.learning.training.header_words.sampling import (
    BENIGN_NAME,
    choose_plan,
    draw,
    merged,
    of_settings,
    publisher_plan,
    shrink_to_fit,
)
from veilwatch.schema.headers import WIRE_FIELDS

FULL = {"a": 88, "b": 53, "c": 49, "d": 40, "e": 40}


def corpus(families: dict[str, int], benign: int, *, per_group: int = 2) -> list[CaptureEntry]:
    """Captures of families and benign ones, a few to each group."""
    made: list[CaptureEntry] = []
    for family, count in [*families.items(), (BENIGN_NAME, benign)]:
        for k in range(count):
            label = "benign" if family == BENIGN_NAME else "malicious"
            made.append(
                entry(
                    len(made),
                    label,
                    family=family if label == "malicious" else "",
                    group=f"{family}-{k // per_group}",
                )
            )
    return made


def test_a_corpus_of_the_published_size_gives_the_published_numbers() -> None:
    entries = corpus(FULL, 43, per_group=1)
    plan = choose_plan(entries, merged(entries, {}), scaled=False)
    assert plan.scale == 1
    assert [(item.name, item.train, item.validate) for item in plan.classes] == [
        *[("a", 78, 10), ("b", 43, 10), ("c", 39, 10), ("d", 30, 10), ("e", 30, 10)],
        (BENIGN_NAME, 31, 12),
    ]
    drawn = draw(entries, plan, seed=1)
    assert (len(drawn.train), len(drawn.validate)) == (251, 62)
    labels = Counter(entries[k].label for k in drawn.validate)
    assert labels == {"malicious": 50, "benign": 12}


def test_no_capture_and_no_group_stands_on_both_sides() -> None:
    entries = corpus({name: 2 * count for name, count in FULL.items()}, 120, per_group=5)
    plan = choose_plan(entries, merged(entries, {}), scaled=False)
    for seed in range(5):
        drawn = draw(entries, plan, seed)
        assert len(set(drawn.train + drawn.validate)) == 313
        sides = [{entries[k].group for k in side} for side in (drawn.train, drawn.validate)]
        assert not sides[0] & sides[1]
    assert draw(entries, plan, 1) == draw(entries, plan, 1) != draw(entries, plan, 2)


def test_unseen_variants_come_from_as_many_groups_as_there_are() -> None:
    entries = corpus({name: 3 * count for name, count in FULL.items()}, 120, per_group=3)
    plan = choose_plan(entries, merged(entries, {}), scaled=False)
    drawn = draw(entries, plan, 3)
    groups = {entries[k].group for k in drawn.validate if entries[k].family == "a"}
    assert len(groups) == 10  # of three captures each, one of which validates


def test_what_trains_is_of_as_many_groups_as_what_does_not_validate_has() -> None:
    entries = corpus({name: 3 * count for name, count in FULL.items()}, 120, per_group=3)
    plan = choose_plan(entries, merged(entries, {}), scaled=False)
    drawn = draw(entries, plan, 3)
    groups = {entries[k].group for k in drawn.train if entries[k].label == "benign"}
    assert len(groups) == 40 - 12  # 31 captures


def test_large_groups_are_held_out_no_sooner_than_small_ones() -> None:
    entries = corpus(FULL, 43, per_group=1)
    entries += [
        entry(len(entries) + k, "benign", group="one day of one laboratory") for k in range(300)
    ]
    plan = choose_plan(entries, merged(entries, {}), scaled=False)
    held = [draw(entries, plan, seed).validate for seed in range(12)]
    inside = [sum(entries[k].group.startswith("one day") for k in rows) for rows in held]
    assert max(inside) <= 1 and sum(inside) < 12


def test_families_that_were_named_take_part_before_larger_ones() -> None:
    entries = corpus(FULL | {"f": 25, "g": 25, "h": 200}, 43, per_group=1)
    families = merged(entries, {"both": ["f", "g"]})
    plan = choose_plan(entries, families, named=["both"], scaled=False)
    assert [item.name for item in plan.classes] == ["h", "a", "b", "both", "c", BENIGN_NAME]
    assert [item.train for item in plan.classes] == [78, 43, 39, 30, 30, 31]


def test_no_publisher_stands_on_both_sides() -> None:
    entries = corpus(FULL, 60, per_group=1)
    made = [replace(item, publisher=f"{item.label} {k % 13}") for k, item in enumerate(entries)]
    made += [replace(made[0], publisher="large") for _ in range(200)]
    plan = publisher_plan(made, scaled=False)
    for seed in range(5):
        drawn = draw(made, plan, seed)
        assert (len(drawn.train), len(drawn.validate)) == (251, 62)
        sides = [{made[k].publisher for k in side} for side in (drawn.train, drawn.validate)]
        assert not sides[0] & sides[1]
        held = Counter(made[k].publisher for k in drawn.validate)
        assert sum(name.startswith(("malicious", "large")) for name in held) >= 3


def test_benign_captures_of_some_settings() -> None:
    entries = [
        replace(item, extra={"setting": "home" if k % 2 else ""})
        for k, item in enumerate(corpus({"a": 4}, 6))
    ]
    kept = of_settings(entries, ["home"])
    assert Counter(item.label for item in kept) == {"malicious": 4, "benign": 3}
    assert of_settings(entries, []) == entries
    with pytest.raises(TrainingError, match="no benign capture of the setting 'office'") as caught:
        of_settings(entries, ["home", "office"])
    assert "home" in caught.value.hint


def test_the_median_of_an_even_number_of_runs_is_the_lower_one() -> None:
    runs = [
        Run(
            seed=1,
            figures=figures(found, 50 - found, 0, 12),
            errors={},
            known_words=1,
            seconds=0,
        )
        for found in (50, 47, 49, 45)
    ]
    assert median_accuracy(runs).hits == 47 + 12
    assert median_accuracy(runs[:3]).hits == 49 + 12
    assert median_accuracy([]).value is None


def test_the_result_says_which_families_stand_for_the_published_ones() -> None:
    entries = corpus(FULL | {"f": 40}, 43, per_group=1)
    plan = choose_plan(entries, merged(entries, {"kind": ["d", "e"]}), scaled=True)
    said = " | ".join(differences(plan, {"kind": ["d", "e"]}, ["home"]))
    for phrase in (
        "a stands for the published family of 78 captures",
        "kind, made of d, e, stands for the published family of 43 captures",
        "benign captures are those of home",
        "the first 16 packets",
    ):
        assert phrase in said
    assert "benign stands" not in said


def test_a_group_shared_by_families_stays_on_one_side() -> None:
    entries = corpus(FULL | {"a": 200, "b": 200}, 60, per_group=1)
    shared = [
        item
        if item.family not in ("a", "b")
        else entry(k, "malicious", family=item.family, group=f"day-{item.group[2:]}")
        for k, item in enumerate(entries)
    ]
    plan = choose_plan(shared, merged(shared, {}), scaled=False)
    drawn = draw(shared, plan, 5)
    sides = [{shared[k].group for k in side} for side in (drawn.train, drawn.validate)]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("families", "benign", "complaint"),
    [
        (FULL | {"e": 39}, 43, "'e' has 39 captures"),
        (FULL, 42, "'benign' has 42 captures"),
        ({"a": 100}, 43, "1 malicious families"),
        ({}, 43, "no malicious capture"),
        (FULL, 0, "no benign capture"),
    ],
)
def test_too_small_a_corpus_is_one_line(
    families: dict[str, int], benign: int, complaint: str
) -> None:
    entries = corpus(families, benign)
    with pytest.raises(TrainingError, match=complaint) as caught:
        choose_plan(entries, merged(entries, {}), scaled=False)
    assert caught.value.hint


def test_one_group_cannot_be_held_out() -> None:
    entries = corpus(FULL, 43, per_group=1000)
    plan = choose_plan(entries, merged(entries, {}), scaled=False)
    with pytest.raises(TrainingError, match="groups of 'a' cannot be parted"):
        draw(entries, plan, 1)
    with pytest.raises(TrainingError, match="cannot be parted"):
        shrink_to_fit(entries, plan, [1])


def test_scaled_numbers_keep_the_proportion_and_can_be_drawn() -> None:
    entries = corpus({"a": 60, "b": 40, "c": 24, "d": 20, "e": 20}, 200, per_group=4)
    plan = choose_plan(entries, merged(entries, {}), scaled=True)
    assert plan.scale == pytest.approx(24 / 49)
    fitting = shrink_to_fit(entries, plan, [1, 2, 3])
    assert 0 < fitting.scale <= plan.scale
    for item, train in zip(fitting.classes, (78, 43, 39, 30, 30, 31), strict=True):
        assert item.train == max(2, int(train * fitting.scale))
    for seed in (1, 2, 3):
        draw(entries, fitting, seed)


def test_merged_families_count_as_one() -> None:
    entries = corpus({"a": 3, "b": 4, "c": 5}, 1)
    assert {name: len(rows) for name, rows in merged(entries, {"ab": ["a", "b"]}).items()} == {
        "ab": 7,
        "c": 5,
    }
    with pytest.raises(TrainingError, match="no family 'z'"):
        merged(entries, {"x": ["z"]})
    with pytest.raises(TrainingError, match="merged twice"):
        merged(entries, {"x": ["a"], "y": ["a"]})


def test_what_the_published_verdicts_prove() -> None:
    assert PUBLISHED.accuracy.value == pytest.approx(0.9839, abs=1e-4)
    assert PUBLISHED.malicious.recall.low == pytest.approx(0.929, abs=1e-3)
    assert PUBLISHED.false_alarms.low == pytest.approx(0.002, abs=1e-3)
    assert PUBLISHED.false_alarms.high == pytest.approx(0.385, abs=1e-3)
    assert PUBLISHED.benign.precision.value == 1
    assert PUBLISHED.benign.recall.value == pytest.approx(11 / 12)


def test_figures_of_either_class_are_mirror_images() -> None:
    one, other = figures(7, 1, 2, 5), figures(5, 2, 1, 7)
    assert one.benign == other.malicious
    assert one.malicious == other.benign
    assert one.accuracy == other.accuracy


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Small networks over headers that the label shows in."""
    entries = corpus({"a": 14, "b": 10, "c": 9, "d": 8, "e": 8}, 14, per_group=2)
    malicious = np.array([item.label == "malicious" for item in entries])
    tables = random_headers(len(entries), malicious=malicious)
    small = {"packets": 4, "dimensions": 4, "word_epochs": 1, "hidden": 4, "epochs": 3}
    settings = tuple(
        experiment.Asked(
            item.name,
            item.what,
            {**item.parameters, **small, "batch": 8, "learning_rate": 0.05},
            item.shortcuts,
        )
        for item in experiment.SETTINGS
    )
    monkeypatch.setattr(experiment, "SETTINGS", settings)
    monkeypatch.setattr(experiment, "read_manifest", lambda path: entries)
    monkeypatch.setattr(experiment, "content_hashes", lambda entries: {})
    monkeypatch.setattr(experiment, "load_headers", lambda *rest, **settings: tables)
    return tmp_path / "MANIFEST.csv"


def test_every_setting_judges_the_same_captures_in_every_run(quick: Path) -> None:
    options = ReproduceOptions(repeats=2, scaled=True, threads=1)
    result = reproduce(quick, options, command="test")
    assert not result.exact and result.scale < 1 and not result.emulated
    numbers = {"group": result.classes, "publisher": result.by_publisher}
    for setting in result.settings:
        judged = sum(item.validation for item in numbers[setting.held_out])
        assert not setting.left_out
        assert [run.seed for run in setting.runs] == [7, 8]
        for run in setting.runs:
            assert run.figures.accuracy.of == judged
            assert len(run.errors) == judged - run.figures.accuracy.hits
        assert setting.together.accuracy.of == 2 * judged
    assert Reproduction.model_validate_json(result.model_dump_json()) == result
    place_free = next(setting for setting in result.settings if not setting.shortcuts)
    assert known(place_free.together.accuracy.value) > 0.8
    assert sum(item.families.get("a", 0) for item in result.classes) == 14


def test_a_corpus_of_one_publisher_says_that_none_was_held_out(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = [replace(item, publisher="lab") for item in vars(experiment)["read_manifest"](quick)]
    monkeypatch.setattr(experiment, "read_manifest", lambda path: one)
    result = reproduce(quick, ReproduceOptions(scaled=True, threads=1))
    assert result.by_publisher == []
    for setting in result.settings:
        if setting.held_out == "publisher":
            assert "1 publishers of 'malicious' cannot be parted" in setting.left_out
            assert setting.runs == [] and setting.median.value is None
        else:
            assert setting.runs


def test_an_ablation_ends_with_its_time(quick: Path) -> None:
    options = ReproduceOptions(scaled=True, threads=1, ablation_s=1e-9)
    result = reproduce(quick, options)
    improved, raw = result.ablation
    assert improved.skipped == 2 * len(improved.worth)  # alone, and all but it
    assert raw.skipped == len(raw.worth) == len(WIRE_FIELDS)
    assert all(item.alone is item.without is None for item in (*improved.worth, *raw.worth))
    marked = {item.field for item in raw.worth if item.identifying}
    assert {"ip_src", "tcp_seq"} < marked and "ip_protocol" not in marked
