"""Which captures train and which validate: the numbers of the published experiment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Final, Literal

import numpy as np

from veilwatch.corpus.manifest import CaptureEntry, Label
from veilwatch.errors import TrainingError

FAMILIES: Final = (78, 43, 39, 30, 30)
"""Training captures of the five malicious families, largest first (published order: 30, 43, 78,
39, 30)."""

UNSEEN: Final = 10
"""Validation captures of each family, all of them unseen variants."""

BENIGN: Final = (31, 12)
"""Benign captures for training and for validation."""

LEAST: Final = (2, 1)
"""Fewest captures of a class that a scaled experiment is left with, training and validation."""

STEP: Final = 0.97
"""Factor by which a scaled experiment shrinks until whole groups fit on either side."""

BENIGN_NAME: Final = "benign"
MALICIOUS_NAME: Final = "malicious"


@dataclass(frozen=True, slots=True)
class Apart:
    """What is never on both sides of a draw.

    Attributes
    ----------
    name
        "group" or "publisher".
    of
        Which one a capture belongs to.
    most
        Captures of one that count among those that validate, so that no single one decides.
    """

    name: Literal["group", "publisher"]
    of: Callable[[CaptureEntry], str]
    most: int


VARIANTS: Final = Apart("group", lambda entry: entry.group, most=1)
"""Unseen variants, as published: captures of one source, family and day are one variant."""

PUBLISHERS: Final = Apart("publisher", lambda entry: entry.publisher, most=UNSEEN)
"""Unseen laboratories: no author of a validation capture was met in training."""


@dataclass(frozen=True, slots=True)
class Class:
    """A family, or everything of a label.

    Attributes
    ----------
    name
        Name of the family; `BENIGN_NAME` for benign captures, `MALICIOUS_NAME` for malicious ones
        of any family.
    rows
        Its captures, as indices into the corpus.
    published
        How many of them trained and validated in the publication.
    train, validate
        How many of them train and validate here.
    """

    name: str
    rows: tuple[int, ...]
    published: tuple[int, int]
    train: int
    validate: int


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """How many captures of which class take part.

    Attributes
    ----------
    classes
        The five families, or malicious captures of any, and the benign captures.
    scale
        Share of the published numbers; 1 for an experiment of the published size.
    apart
        What is never on both sides.
    """

    classes: tuple[Class, ...]
    scale: float
    apart: Apart


@dataclass(frozen=True, slots=True)
class Draw:
    """Captures of one run, as indices into the corpus."""

    train: tuple[int, ...]
    validate: tuple[int, ...]


def of_settings(entries: Sequence[CaptureEntry], settings: Collection[str]) -> list[CaptureEntry]:
    """Return all malicious captures and the benign ones of some settings, all of them for none.

    Raises
    ------
    TrainingError
        If no benign capture is of a setting.
    """
    if not settings:
        return list(entries)
    known = {entry.extra.get("setting", "") for entry in entries if entry.label == "benign"}
    unknown = [name for name in settings if name not in known or not name]
    if unknown:
        raise TrainingError(
            f"no benign capture of the setting {unknown[0]!r}",
            hint=f"the manifest's column says: {', '.join(sorted(known - {''})) or 'nothing'}",
        )
    return [
        entry
        for entry in entries
        if entry.label == "malicious" or entry.extra.get("setting") in settings
    ]


def merged(
    entries: Sequence[CaptureEntry], merge: Mapping[str, Sequence[str]]
) -> dict[str, list[int]]:
    """Return the malicious captures by family, some families under one name.

    Raises
    ------
    TrainingError
        If a family to be merged does not exist or is named twice.
    """
    names = {entry.family for entry in entries if entry.label == "malicious"}
    wanted = [family for families in merge.values() for family in families]
    unknown = [family for family in wanted if family not in names]
    if unknown:
        raise TrainingError(f"no family {unknown[0]!r} to merge", hint="see veilwatch corpus show")
    twice = [family for family, times in Counter(wanted).items() if times > 1]
    if twice:
        raise TrainingError(f"family {twice[0]!r} is merged twice", hint="name it once")
    place = {family: name for name, families in merge.items() for family in families}
    out: dict[str, list[int]] = defaultdict(list)
    for k, entry in enumerate(entries):
        if entry.label == "malicious":
            out[place.get(entry.family, entry.family)].append(k)
    return dict(out)


def choose_plan(
    entries: Sequence[CaptureEntry],
    families: Mapping[str, Sequence[int]],
    *,
    named: Collection[str] = (),
    scaled: bool,
) -> SamplingPlan:
    """Return the published numbers for five families and the benign captures.

    Families named by a person take part before others, larger ones before smaller ones. The
    largest of the five takes the place of the largest published one, and so on.

    Parameters
    ----------
    families
        Captures by family, see `merged`.
    named
        Families that a person asked for.
    scaled
        Whether a smaller corpus may take part in proportion.

    Raises
    ------
    TrainingError
        If there are fewer than five families, or too few captures of a class.
    """
    benign = _labelled(entries, "benign")
    _labelled(entries, "malicious")
    largest_first = sorted(families, key=lambda name: (-len(families[name]), name))
    chosen = sorted(largest_first, key=lambda name: name not in named)[: len(FAMILIES)]
    if len(chosen) < len(FAMILIES):
        raise TrainingError(
            f"the corpus holds {len(chosen)} malicious families, the experiment takes "
            f"{len(FAMILIES)}",
            hint="add captures of other families to its manifest",
        )
    chosen.sort(key=largest_first.index)
    wanted = [
        (name, families[name], (train, UNSEEN))
        for name, train in zip(chosen, FAMILIES, strict=True)
    ]
    return _choose([*wanted, (BENIGN_NAME, benign, BENIGN)], VARIANTS, scaled=scaled)


def publisher_plan(entries: Sequence[CaptureEntry], *, scaled: bool) -> SamplingPlan:
    """Return the published numbers for malicious captures of any family and benign ones.

    A family hardly ever has several publishers: held out, they bring families of their own.

    Raises
    ------
    TrainingError
        If there are too few captures of a class.
    """
    malicious = (sum(FAMILIES), UNSEEN * len(FAMILIES))
    wanted = [
        (MALICIOUS_NAME, _labelled(entries, "malicious"), malicious),
        (BENIGN_NAME, _labelled(entries, "benign"), BENIGN),
    ]
    return _choose(wanted, PUBLISHERS, scaled=scaled)


def _labelled(entries: Sequence[CaptureEntry], label: Label) -> list[int]:
    rows = [k for k, entry in enumerate(entries) if entry.label == label]
    if not rows:
        raise TrainingError(
            f"the corpus holds no {label} capture with an IP packet",
            hint=f"add {label} captures to its manifest",
        )
    return rows


def _choose(
    wanted: Sequence[tuple[str, Sequence[int], tuple[int, int]]], apart: Apart, *, scaled: bool
) -> SamplingPlan:
    """Return the numbers wanted, or as large a share of all as the smallest class allows."""
    short = [(name, rows, sum(both)) for name, rows, both in wanted if len(rows) < sum(both)]
    if short and not scaled:
        name, rows, need = short[0]
        raise TrainingError(
            f"{name!r} has {len(rows)} captures, the published numbers take {need}",
            hint="add captures, merge families with --merge, or shrink all numbers with --scaled",
        )
    classes = tuple(Class(name, tuple(rows), both, *both) for name, rows, both in wanted)
    scale = min([1.0, *(len(rows) / need for _, rows, need in short)])
    return _shrunk(SamplingPlan(classes, 1.0, apart), scale)


def _shrunk(plan: SamplingPlan, scale: float) -> SamplingPlan:
    classes = tuple(
        replace(
            item,
            train=max(LEAST[0], int(item.published[0] * scale)),
            validate=max(LEAST[1], int(item.published[1] * scale)),
        )
        for item in plan.classes
    )
    return SamplingPlan(classes, scale, plan.apart)


def draw(entries: Sequence[CaptureEntry], plan: SamplingPlan, seed: int) -> Draw:
    """Draw the captures of one run: no group or publisher stands on both sides.

    Raises
    ------
    TrainingError
        If the groups of a class do not leave enough captures on either side.
    """
    rng = np.random.default_rng([seed, 3])
    side: dict[str, bool] = {}  # whether a group or publisher validates
    train: list[int] = []
    validate: list[int] = []
    for item in plan.classes:
        members = _shuffled(entries, item.rows, plan.apart, rng)
        _assign(members, item, plan.apart.most, side)
        unseen = _in_turn([rows for group, rows in members.items() if side[group]])
        seen = _in_turn([rows for group, rows in members.items() if not side[group]])
        if len(unseen) < item.validate or len(seen) < item.train:
            raise TrainingError(
                f"the {len(members)} {plan.apart.name}s of {item.name!r} cannot be parted into "
                f"{item.train} captures to learn from and {item.validate} of other "
                f"{plan.apart.name}s",
                hint="add captures of others (days, variants, publishers), or use --scaled",
            )
        validate += unseen[: item.validate]
        train += seen[: item.train]
    return Draw(tuple(train), tuple(validate))


def _shuffled(
    entries: Sequence[CaptureEntry],
    rows: Sequence[int],
    apart: Apart,
    rng: np.random.Generator,
) -> dict[str, list[int]]:
    """Return captures by group, groups in an order in which large ones come no sooner."""
    members: dict[str, list[int]] = defaultdict(list)
    for row in rng.permutation(rows).tolist():
        members[apart.of(entries[row])].append(row)
    names = sorted(members)
    return {names[k]: members[names[k]] for k in rng.permutation(len(names)).tolist()}


def _in_turn(groups: Sequence[Sequence[int]]) -> list[int]:
    """Return the first capture of each group, then the second of each: many variants first."""
    turns = zip_longest(*groups)
    return [row for turn in turns for row in turn if row is not None]


def _assign(
    members: Mapping[str, Sequence[int]], item: Class, most: int, side: dict[str, bool]
) -> None:
    """Say of each group of a class on which side it stands; groups of earlier classes stay.

    Of groups that validate `most` captures count, so that there are many of them as long as enough
    are left to learn from: ten captures of one day would be one variant ten times.
    """
    held = sum(min(len(rows), most) for group, rows in members.items() if side.get(group, False))
    free = sum(len(rows) for group, rows in members.items() if not side.get(group, False))
    for group, rows in members.items():
        if group in side:
            continue
        side[group] = held < item.validate and free - len(rows) >= item.train
        if side[group]:
            held, free = held + min(len(rows), most), free - len(rows)


def shrink_to_fit(
    entries: Sequence[CaptureEntry], plan: SamplingPlan, seeds: Sequence[int]
) -> SamplingPlan:
    """Return the largest share of a plan of which every seed can draw.

    Raises
    ------
    TrainingError
        If not even the fewest captures can be drawn.
    """
    scale = plan.scale
    while True:
        tried = _shrunk(plan, scale)
        try:
            for seed in seeds:
                draw(entries, tried, seed)
        except TrainingError:
            if all((item.train, item.validate) == LEAST for item in tried.classes):
                raise
            scale *= STEP
        else:
            return tried
