"""Trees that LightGBM would not have written never reach it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from veilwatch.learning.detectors import tree_text
from veilwatch.learning.detectors.tree_text import TreeTextError, check_trees, trees_alone

FEATURES = 5


def model(classes: int = 1, **parameters: object) -> str:
    rng = np.random.default_rng(3)
    values = rng.random((300, FEATURES))
    values[rng.random(values.shape) < 0.2] = np.nan
    label = (values[:, 0] > 0.5) if classes == 1 else rng.integers(0, classes, 300)
    chosen = {"objective": "binary", "verbosity": -1, "num_threads": 1, "num_leaves": 6}
    if classes > 1:
        chosen |= {"objective": "multiclass", "num_class": classes}
    data = lightgbm.Dataset(values, label.astype(float))
    return str(lightgbm.train(chosen | parameters, data, 4).model_to_string())


TEXT, FAMILIES = model(), model(3)


@pytest.mark.parametrize("text", [TEXT, FAMILIES, model(min_data_in_leaf=400)])
def test_what_lightgbm_writes_is_taken_and_means_the_same(text: str) -> None:
    checked = check_trees(text)
    values = np.random.default_rng(1).random((20, FEATURES))
    one, two = lightgbm.Booster(model_str=text), lightgbm.Booster(model_str=checked.text)
    for contributions in (False, True):
        np.testing.assert_array_equal(
            one.predict(values, pred_contrib=contributions),
            two.predict(values, pred_contrib=contributions),
        )
    assert checked.feature_names == [f"Column_{k}" for k in range(FEATURES)]
    assert check_trees(checked.text) == checked


def changed(name: str, value: str, *, tree: int = 0, text: str = TEXT) -> str:
    """The text with another line in one of its trees, or in the header, and right sizes."""
    start, end = text.index("Tree=0\n"), text.index("end of trees\n")
    trees = ["Tree=" + part for part in text[start:end].split("Tree=")[1:]]
    head = text[:start]

    def put(part: str) -> str:
        lines = part.split("\n")
        at = next(k for k, line in enumerate(lines) if line.startswith(f"{name}="))
        lines[at] = f"{name}={value}"
        return "\n".join(lines)

    if f"\n{name}=" in head:
        return put(head) + "".join(trees) + text[end:]
    trees[tree] = put(trees[tree])
    sizes = " ".join(str(len(part)) for part in trees)
    lines = [
        f"tree_sizes={sizes}" if ln.startswith("tree_sizes=") else ln for ln in head.split("\n")
    ]
    return "\n".join(lines) + "".join(trees) + text[end:]


def value(name: str, text: str = TEXT) -> list[str]:
    return text.split(f"\n{name}=")[1].split("\n")[0].split(" ")


def first(name: str, by: str) -> tuple[str, str]:
    return name, " ".join([by, *value(name)[1:]])


HOSTILE = [
    first("split_feature", "5"),
    first("split_feature", "-1"),
    first("split_feature", "2000000000"),
    first("left_child", "0"),
    first("left_child", "9"),
    first("left_child", "-9"),
    first("right_child", "-2147483648"),
    first("right_child", value("left_child")[0]),
    first("decision_type", "1"),
    first("decision_type", "12"),
    first("decision_type", "3"),
    first("threshold", "nan"),
    first("threshold", "1e999"),
    first("leaf_value", "inf"),
    first("leaf_value", "nan"),
    first("leaf_count", "-1"),
    first("leaf_count", "99999999999"),
    ("num_leaves", "7"),
    ("num_leaves", "1"),
    ("num_leaves", "0"),
    ("num_leaves", "-5"),
    ("num_leaves", "2147483647"),
    ("num_leaves", "9" * 5000),
    ("num_cat", "1"),
    ("is_linear", "1"),
    ("threshold", ""),
    ("left_child", " ".join(value("left_child")[1:])),
    ("leaf_value", " ".join([*value("leaf_value"), "0.1"])),
    ("shrinkage", "x"),
    ("tree_sizes", "9" * 5000),
    ("tree_sizes", "1 2 3 4"),
    ("tree_sizes", "-1 2"),
    ("tree_sizes", ""),
    ("num_class", "2"),
    ("num_class", "0"),
    ("num_class", "9" * 5000),
    ("num_tree_per_iteration", "3"),
    ("max_feature_idx", "6"),
    ("max_feature_idx", "9" * 5000),
    ("label_index", "3"),
    ("objective", "lambdarank"),
    ("objective", "binary sigmoid:nan"),
    ("objective", "binary sigmoid:-1"),
    ("objective", "multiclass num_class:3"),
    ("feature_names", "a b"),
    ("feature_infos", "none none none none 1:2:3"),
    ("version", "v3"),
]


@pytest.mark.parametrize(("name", "text"), HOSTILE)
def test_what_it_would_not_write_is_refused(name: str, text: str) -> None:
    with pytest.raises(TreeTextError):
        check_trees(changed(name, text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tree\n",
        TEXT.replace("Tree=1\n", "Tree=7\n", 1),
        TEXT.replace("\nshrinkage=1\n", "\nshrinkage=1\nleaf_const=1\n", 1),
        TEXT.replace("tree\n", "tree\naverage_output\n", 1),
        TEXT.replace("left_child", "right_child", 1),
        TEXT.replace("tree\n", "tree\r\n", 1),
        FAMILIES.replace("num_tree_per_iteration=3", "num_tree_per_iteration=1", 1),
        FAMILIES.replace("num_class=3", "num_class=2", 1),
    ],
)
def test_other_lines_are_refused(text: str) -> None:
    with pytest.raises(TreeTextError):
        check_trees(text)


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bound in (("MAX_TEXT", 1000), ("MAX_TREES", 3), ("MAX_LEAVES", 5)):
        with monkeypatch.context() as patch:
            patch.setattr(tree_text, name, bound)
            with pytest.raises(TreeTextError):
                check_trees(TEXT)


def test_a_tree_that_is_a_loop_or_deeper_than_allowed_is_refused() -> None:
    with pytest.raises(TreeTextError, match="back"):
        check_trees(changed("left_child", " ".join(["0"] * 5)))


# Lines are exchanged, numbers replaced by others that a text may hold, characters by others.
NUMBERS = st.sampled_from(
    (
        *(*"0123456789", "-1", "-2", "-9", "6", "31", "255", "2147483647", "-2147483648"),
        *("inf", "nan", "1e308", "1e-320", "-0", "", "9" * 40, "0x10", "1 1", "4294967296"),
    )
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), NUMBERS), min_size=1, max_size=4
)


def mutated(text: str, changes: list[tuple[int, int, str]]) -> str:
    start, end = text.index("Tree=0\n"), text.index("end of trees\n")
    for line_at, at, number in changes:
        lines = text[start:end].split("Tree=")[1:]
        tree = line_at % len(lines)
        rows = lines[tree].split("\n")
        row = 1 + (line_at // len(lines)) % (len(rows) - 4)
        name, _, values = rows[row].partition("=")
        parts = values.split(" ")
        parts[at % len(parts)] = number
        rows[row] = f"{name}={' '.join(parts)}"
        lines[tree] = "\n".join(rows)
        whole = ["Tree=" + part for part in lines]
        head = text[:start].split("\n")
        sizes = "tree_sizes=" + " ".join(str(len(part)) for part in whole)
        head = [sizes if ln.startswith("tree_sizes=") else ln for ln in head]
        text = "\n".join(head) + "".join(whole) + text[end:]
        start, end = text.index("Tree=0\n"), text.index("end of trees\n")
    return text


@examples(300)
@given(st.sampled_from([TEXT, FAMILIES]), CHANGES)
def test_what_passes_has_its_places_in_range(
    text: str, changes: list[tuple[int, int, str]]
) -> None:
    try:
        checked = check_trees(mutated(text, changes))
    except TreeTextError:
        return
    for part in checked.text.split("Tree=")[1:]:
        leaves = int(value("num_leaves", part)[0])
        if leaves > 1:
            assert max(map(int, value("split_feature", part))) < FEATURES
            for side in ("left_child", "right_child"):
                children = [int(v) for v in value(side, part)]
                assert all(-leaves <= c < leaves - 1 for c in children)
                assert all(c < 0 or c > k for k, c in enumerate(children))


RUNNER = """
import json, sys
import numpy as np, lightgbm
from veilwatch.learning.detectors.tree_text import TreeTextError, check_trees, trees_alone
values = np.random.default_rng(1).random((40, 5))
taken = refused = 0
for text in json.load(open(sys.argv[1])):
    try:
        checked = check_trees(text)
    except TreeTextError:
        refused += 1
        continue
    booster = lightgbm.Booster(model_str=checked.text)
    booster.predict(values), booster.predict(values, pred_contrib=True)
    taken += 1
print(taken, refused)
"""


def test_nothing_that_passes_ends_the_process(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    numbers = ["0", "1", "2", "3", "-1", "-2", "-3", "4", "-7", "99", "inf", "1e300", "8", "10"]
    texts = [changed(name, text) for name, text in HOSTILE]
    for k in range(1500):
        count = int(rng.integers(1, 4))
        steps = rng.integers(0, 10**6, (count, 2)).tolist()
        chosen = [(a, b, numbers[int(rng.integers(len(numbers)))]) for a, b in steps]
        texts.append(mutated((TEXT, FAMILIES)[k % 2], chosen))
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    words = [sys.executable, "-c", RUNNER, str(tmp_path / "texts.json")]
    found = subprocess.run(words, capture_output=True, text=True, env=os.environ, timeout=300)
    assert found.returncode == 0, found.stderr[-500:]
    taken, refused = map(int, found.stdout.split())
    assert taken > 100 and refused > 500 and taken + refused == len(texts)


@pytest.mark.parametrize(
    "number",
    [
        *("85.099998474121108", "74.592498779296889", "0.51249998807907116", "-3.1000000238418573"),
        *("1.0000000180025095e-35", "-1.0000000180025095e-35", "12345678.500000002", "7", "0.5"),
    ],
)
def test_values_at_a_threshold_stay_on_their_side(number: str) -> None:
    """Ten digits, and never below what was meant; once more makes no difference."""
    short = trees_alone(f"tree\n\nTree=0\nthreshold={number}\n\n\nend of trees\n")
    (told,) = re.findall(r"^threshold=(\S+)", short, re.MULTILINE)
    assert float(number) <= float(told) <= float(number) + abs(float(number)) * 1.1e-9
    again = trees_alone(short.replace(told, f"{float(told):.17g}"))
    assert re.findall(r"^threshold=(\S+)", again, re.MULTILINE) == [told]
