"""LightGBM's text of trees, checked before LightGBM sees it.

LightGBM believes what it reads: a child that points outside of its tree, or back into it, ends the
process or writes outside of a buffer, most easily while contributions are computed. The text is
therefore read here first, in exactly the form that LightGBM 4 writes (`GBDT::SaveModelToString`,
`Tree::ToString` of its source), and refused if it differs. What LightGBM is given afterwards holds
the checked lines only, none of the parameters that follow them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from typing import Final

MAX_TEXT: Final = 64 * 1024 * 1024
"""Largest text read, in bytes: a thousand trees of 31 leaves take 4 MB, twenty families at forty
rounds 2 MB."""

MAX_TREES: Final = 1 << 16
"""Most trees: 256 families at 256 rounds."""

MAX_LEAVES: Final = 1024
"""Most leaves of a tree: ours have 31. A tree is never deeper than it has leaves, and contributions
are computed by recursion."""

MAX_COUNT: Final = (1 << 31) - 1
"""Largest count of rows: LightGBM keeps it in 32 bits."""

MAX_NUMBER: Final = 32
"""Characters of a number: doubles are written with 17 digits."""

END_OF_TREES: Final = "end of trees\n"
END_OF_PARAMETERS: Final = "end of parameters\n"

_TAIL: Final = f"{END_OF_TREES}\nparameters:\n{END_OF_PARAMETERS}\npandas_categorical:null\n"

_HEADER: Final = (
    *("version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx"),
    *("objective", "feature_names", "feature_infos", "tree_sizes"),
)
_TREE: Final = (
    *("num_leaves", "num_cat", "split_feature", "split_gain", "threshold", "decision_type"),
    *("left_child", "right_child", "leaf_value", "leaf_weight", "leaf_count", "internal_value"),
    *("internal_weight", "internal_count", "is_linear", "shrinkage"),
)

_INTEGERS: Final = re.compile(r"(?:-?\d{1,10}(?: |$))*", re.ASCII)
_REALS: Final = re.compile(r"(?:-?\d+(?:\.\d+)?(?:e[+-]?\d{1,3})?(?: |$))*", re.ASCII)
"""Whole lines at once: asking number by number took most of the time of loading a model."""

_RANGE: Final = re.compile(r"none|\[[-+.0-9a-z]{1,32}:[-+.0-9a-z]{1,32}\]", re.ASCII)
_BINARY: Final = re.compile(r"binary sigmoid:(\S{1,32})", re.ASCII)

_DIRECTIONS: Final = re.compile(r"^monotone_constraints=[-0-9 ]*\n", re.ASCII | re.MULTILINE)

_TREE_BEGINS: Final = re.compile(r"^(?=Tree=\d)", re.ASCII | re.MULTILINE)
_SIZES: Final = re.compile(r"^tree_sizes=.*$", re.MULTILINE)
_LONG: Final = re.compile(
    r"^(?P<name>threshold|leaf_weight)=(?P<numbers>[-+.0-9e ]+)$", re.ASCII | re.MULTILINE
)
"""Lines whose numbers LightGBM writes with 17 digits though fewer serve."""

_UP: Final = Context(prec=10, rounding=ROUND_CEILING)

_DECISIONS: Final = frozenset((0, 2, 4, 6, 8, 10))
"""Kinds of splits (`Tree::decision_type`): bit 0 is a split by categories, which none of ours is;
bit 1 where missing values go; bits 2 and 3 what is missing: nothing, zero or NaN."""


class TreeTextError(ValueError):
    """The text is not as LightGBM writes it; says where it differs."""


@dataclass(frozen=True, slots=True)
class TreeText:
    """Text that was checked.

    Attributes
    ----------
    text
        Header and trees, as they were, with nothing behind them.
    feature_names
        Columns that the trees look at.
    classes
        Trees of each round: 1 for two classes, else the number of classes.
    trees
        How many there are.
    """

    text: str
    feature_names: list[str]
    classes: int
    trees: int


def trees_alone(text: str) -> str:
    """Return text that LightGBM wrote with nothing but its trees, unchecked.

    What lies behind them are parameters, and so are the directions in which the trees had to grow:
    whoever serves them needs neither.
    """
    head, *trees = _TREE_BEGINS.split(text.partition(END_OF_TREES)[0])
    trees = [_LONG.sub(_shorter, tree) for tree in trees]
    # Whoever reads the trees in parallel finds them by their sizes.
    sizes = " ".join(str(len(tree)) for tree in trees)
    head = _SIZES.sub(f"tree_sizes={sizes}", _DIRECTIONS.sub("", head))
    return head + "".join(trees) + _TAIL


def _shorter(line: re.Match[str]) -> str:
    """Write numbers with no more digits than they need, a fifth of the text less.

    Features are floats of 32 bits: ten digits tell a threshold between two neighbours from both.
    They are rounded upwards: a threshold lies at the largest value that goes left, or just above
    it. The weight of a leaf is looked at by nobody who serves trees.
    """
    shorter = _rounded_up if line["name"] == "threshold" else "{:.6g}".format
    numbers = (shorter(float(number)) for number in line["numbers"].split(" "))
    return f"{line['name']}={' '.join(numbers)}"


def _rounded_up(value: float) -> str:
    """Return a number with ten digits that is no less, itself if ten digits hold it."""
    text = f"{value:.10g}"
    return text if float(text) >= value else f"{float(_UP.create_decimal(value)):.10g}"


def check_trees(text: str) -> TreeText:
    """Read the text of a LightGBM model and refuse what LightGBM would not have written.

    Raises
    ------
    TreeTextError
        If it is anything but trees over plain numbers, each of them whole.
    """
    if len(text) > MAX_TEXT:
        raise TreeTextError(f"larger than {MAX_TEXT >> 20} MiB")
    start, end = text.find("Tree=0\n"), text.find(END_OF_TREES)
    if not 0 < start < end or END_OF_PARAMETERS not in text[end:]:
        raise TreeTextError("not whole")
    if "\0" in text or "\r" in text:
        raise TreeTextError("characters that no model has")
    header = _fields(text[:start].removeprefix("tree\n"), _HEADER, "header")
    if not text.startswith("tree\nversion=v4\n"):
        raise TreeTextError("another version of the format")
    sizes = _integers(header["tree_sizes"], "tree_sizes", low=1, high=MAX_TEXT)
    if sum(sizes) != end - start:
        raise TreeTextError("not whole")
    names = header["feature_names"].split(" ")
    classes = _check_header(header, names, len(sizes))
    at = start
    for number, size in enumerate(sizes):
        _check_tree(text[at : at + size], number, len(names))
        at += size
    return TreeText(text[:end] + _TAIL, names, classes, len(sizes))


def _check_header(header: dict[str, str], names: list[str], trees: int) -> int:
    if trees > MAX_TREES:
        raise TreeTextError(f"more than {MAX_TREES} trees")
    (classes,) = _integers(header["num_class"], "num_class", low=1, high=trees, count=1)
    _integers(header["num_tree_per_iteration"], "trees of a round", classes, classes, 1)
    _integers(header["label_index"], "label_index", 0, 0, 1)
    last = len(names) - 1
    _integers(header["max_feature_idx"], "max_feature_idx", last, last, 1)
    if trees % classes:
        raise TreeTextError("a round is not whole")
    objective = header["objective"]
    if classes > 1:
        known = objective == f"multiclass num_class:{classes}"
    else:
        found = _BINARY.fullmatch(objective)
        known = found is not None
        if found is not None:
            _reals("objective", {"sigmoid": (found[1], 1)})
            known = float(found[1]) > 0
    if not known:
        raise TreeTextError(f"objective {objective[:60]!r}")
    ranges = header["feature_infos"].split(" ")
    if len(ranges) != len(names) or not all(map(_RANGE.fullmatch, ranges)):
        raise TreeTextError("feature_infos do not fit the features")
    return classes


def _check_tree(text: str, number: int, features: int) -> None:
    where = f"tree {number}"
    head = f"Tree={number}\n"
    if not text.startswith(head) or not text.endswith("\n\n\n"):
        raise TreeTextError(f"{where}: not where tree_sizes says")
    fields = _fields(text.removeprefix(head), _TREE, where)
    (leaves,) = _integers(fields["num_leaves"], f"{where}: num_leaves", 1, MAX_LEAVES, 1)
    splits = leaves - 1
    for name in ("num_cat", "is_linear"):
        _integers(fields[name], f"{where}: {name}", 0, 0, 1)
    _integers(fields["split_feature"], f"{where}: split_feature", 0, features - 1, splits)
    decisions = _integers(fields["decision_type"], f"{where}: decision_type", 0, 10, splits)
    if not _DECISIONS.issuperset(decisions):
        raise TreeTextError(f"{where}: a decision_type that ours have not")
    # A split between what has a value and what has none lies at infinity. A tree of one leaf has no
    # weight, and in some versions no count.
    thresholds = [part for part in fields["threshold"].split(" ") if part != "inf"]
    infinite = fields["threshold"].split(" ").count("inf")
    _reals(
        where,
        {
            "split_gain": (fields["split_gain"], splits),
            "leaf_value": (fields["leaf_value"], leaves),
            "internal_value": (fields["internal_value"], splits),
            "internal_weight": (fields["internal_weight"], splits),
            "shrinkage": (fields["shrinkage"], 1),
            "threshold": (" ".join(thresholds), splits - infinite),
            "leaf_weight": (fields["leaf_weight"], leaves if splits else None),
        },
    )
    counts = leaves if splits else None
    _integers(fields["leaf_count"], f"{where}: leaf_count", 0, MAX_COUNT, counts)
    _integers(fields["internal_count"], f"{where}: internal_count", 0, MAX_COUNT, splits)
    children = [
        _integers(fields[side], f"{where}: {side}", -leaves, splits - 1, splits)
        for side in ("left_child", "right_child")
    ]
    _check_children(children[0], children[1], leaves, where)


def _check_children(left: Sequence[int], right: Sequence[int], leaves: int, where: str) -> None:
    """Each split but the first, and each leaf, hangs below exactly one split that comes before."""
    parent = [False] * (2 * leaves - 1)  # splits, then leaves
    for split, pair in enumerate(zip(left, right, strict=True)):
        for child in pair:
            if 0 <= child <= split:
                raise TreeTextError(f"{where}: split {split} leads back to {child}")
            place = child if child >= 0 else leaves - 1 + ~child
            if parent[place]:
                raise TreeTextError(f"{where}: two ways lead to one place")
            parent[place] = True
    if leaves > 1 and not all(parent[1:]):
        raise TreeTextError(f"{where}: no way leads to some of it")


def _fields(text: str, names: Sequence[str], where: str) -> dict[str, str]:
    """Return the values of lines `name=value`, which must be these in this order."""
    lines = text.rstrip("\n").split("\n")
    found = [line.partition("=")[::2] for line in lines]
    if tuple(name for name, _ in found) != tuple(names):
        raise TreeTextError(f"{where}: other lines than {', '.join(names[:3])} …")
    return dict(found)


def _integers(text: str, where: str, low: int, high: int, count: int | None = None) -> list[int]:
    """Return whole numbers within bounds; None takes any count of them, or the count of `text`."""
    parts = text.split(" ") if text else []
    _check_count(parts, where, count)
    if not _INTEGERS.fullmatch(text) or "" in parts:
        raise TreeTextError(f"{where}: no whole number")
    values = list(map(int, parts))
    if values and not low <= min(values) <= max(values) <= high:
        raise TreeTextError(f"{where}: outside of {low} to {high}")
    return values


def _reals(where: str, lines: Mapping[str, tuple[str, int | None]]) -> None:
    """Refuse lines, each with the count of its numbers, that hold anything but finite numbers.

    All at once: line by line it took most of the time of loading a model.
    """
    parts: list[str] = []
    for name, (text, count) in lines.items():
        numbers = text.split(" ") if text else []
        _check_count(numbers, f"{where}: {name}", count)
        parts += numbers
    if max(map(len, parts), default=0) > MAX_NUMBER or not _REALS.fullmatch(" ".join(parts)):
        raise TreeTextError(f"{where}: no number")
    if "" in parts or not all(map(math.isfinite, map(float, parts))):
        raise TreeTextError(f"{where}: not finite")


def _check_count(parts: Sequence[str], where: str, count: int | None) -> None:
    if len(parts) > 2 * MAX_TREES or (count is not None and len(parts) != count):
        raise TreeTextError(f"{where}: {len(parts)} numbers, not {count}")
