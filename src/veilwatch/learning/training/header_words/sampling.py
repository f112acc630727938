"""Which captures train and which validate: the numbers of the published experiment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from veilwatch.corpus.manifest import CaptureEntry
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


@dataclass(frozen=True, slots=True)
class Class:
    """A family, or everything benign.

    Attributes
    ----------
    name
        Name of the family; `BENIGN_NAME` for benign captures.
    rows
        Its captures, as indices into the corpus.
    train, validate
        How many of them train and validate.
    """

    name: str
    rows: tuple[int, ...]
    train: int
    validate: int


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """How many captures of which class take part.

    Attributes
    ----------
    classes
        The five families and the benign captures.
    scale
        Share of the published numbers; 1 for an experiment of the published size.
    """

    classes: tuple[Class, ...]
    scale: float


@dataclass(frozen=True, slots=True)
class Draw:
    """Captures of one run, as indices into the corpus."""

    train: tuple[int, ...]
    validate: tuple[int, ...]


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
    entries: Sequence[CaptureEntry], families: Mapping[str, Sequence[int]], *, scaled: bool
) -> SamplingPlan:
    """Return the published numbers for the five largest families and the benign captures.

    The largest family takes the place of the largest published one, and so on.

    Parameters
    ----------
    families
        Captures by family, see `merged`.
    scaled
        Whether a smaller corpus may take part in proportion.

    Raises
    ------
    TrainingError
        If there are fewer than five families, or too few captures of a class.
    """
    benign = [k for k, entry in enumerate(entries) if entry.label == "benign"]
    for label, any_there in (("benign", bool(benign)), ("malicious", bool(families))):
        if not any_there:
            raise TrainingError(
                f"the corpus holds no {label} capture with an IP packet",
                hint=f"add {label} captures to its manifest",
            )
    largest = sorted(families, key=lambda name: (-len(families[name]), name))[: len(FAMILIES)]
    if len(largest) < len(FAMILIES):
        raise TrainingError(
            f"the corpus holds {len(largest)} malicious families, the experiment takes "
            f"{len(FAMILIES)}",
            hint="add captures of other families to its manifest",
        )
    wanted = [
        *(
            (name, families[name], train, UNSEEN)
            for name, train in zip(largest, FAMILIES, strict=True)
        ),
        (BENIGN_NAME, benign, *BENIGN),
    ]
    short = [(name, rows, a + b) for name, rows, a, b in wanted if len(rows) < a + b]
    if short and not scaled:
        name, rows, need = short[0]
        raise TrainingError(
            f"{name!r} has {len(rows)} captures, the published numbers take {need}",
            hint="add captures, merge families with --merge, or shrink all numbers with --scaled",
        )
    scale = min([1.0, *(len(rows) / need for _, rows, need in short)])
    return _plan(wanted, scale)


def _plan(wanted: Sequence[tuple[str, Sequence[int], int, int]], scale: float) -> SamplingPlan:
    classes = tuple(
        Class(
            name,
            tuple(rows),
            max(LEAST[0], int(train * scale)),
            max(LEAST[1], int(validate * scale)),
        )
        for name, rows, train, validate in wanted
    )
    return SamplingPlan(classes, scale)


def draw(entries: Sequence[CaptureEntry], plan: SamplingPlan, seed: int) -> Draw:
    """Draw the captures of one run: no group stands on both sides, of benign ones neither.

    Raises
    ------
    TrainingError
        If the groups of a class do not leave enough captures on either side.
    """
    rng = np.random.default_rng([seed, 3])
    side: dict[str, bool] = {}  # whether a group validates
    train: list[int] = []
    validate: list[int] = []
    for item in plan.classes:
        members: dict[str, list[int]] = defaultdict(list)
        for row in rng.permutation(item.rows).tolist():
            members[entries[row].group].append(row)
        _assign(members, item, side)
        held = [rows for group, rows in members.items() if side[group]]
        kept = [rows for group, rows in members.items() if not side[group]]
        # Each validating group in turn: as many variants as there are.
        unseen = [
            row for turn in range(max(map(len, held), default=0)) for row in _turn(held, turn)
        ]
        seen = [row for rows in kept for row in rows]
        if len(unseen) < item.validate or len(seen) < item.train:
            raise TrainingError(
                f"the {len(members)} groups of {item.name!r} cannot be parted into {item.train} "
                f"captures to learn from and {item.validate} of other groups",
                hint="add captures of other groups (days, variants), or use --scaled",
            )
        validate += unseen[: item.validate]
        train += rng.permutation(seen)[: item.train].tolist()
    return Draw(tuple(train), tuple(validate))


def _turn(groups: Sequence[Sequence[int]], turn: int) -> list[int]:
    return [rows[turn] for rows in groups if turn < len(rows)]


def _assign(members: Mapping[str, Sequence[int]], item: Class, side: dict[str, bool]) -> None:
    """Say of each group of a class on which side it stands; groups of earlier classes stay."""
    held = sum(len(rows) for group, rows in members.items() if side.get(group, False))
    free = sum(len(rows) for group, rows in members.items() if not side.get(group, False))
    for group, rows in members.items():
        if group in side:
            continue
        side[group] = held < item.validate and free - len(rows) >= item.train
        if side[group]:
            held, free = held + len(rows), free - len(rows)


def shrink_to_fit(
    entries: Sequence[CaptureEntry], plan: SamplingPlan, seeds: Sequence[int]
) -> SamplingPlan:
    """Return the largest share of a plan of which every seed can draw.

    Raises
    ------
    TrainingError
        If not even the fewest captures can be drawn.
    """
    wanted = [
        (item.name, item.rows, *numbers)
        for item, numbers in zip(
            plan.classes, [*((train, UNSEEN) for train in FAMILIES), BENIGN], strict=True
        )
    ]
    scale = plan.scale
    while True:
        tried = _plan(wanted, scale)
        try:
            for seed in seeds:
                draw(entries, tried, seed)
        except TrainingError:
            if all((item.train, item.validate) == LEAST for item in tried.classes):
                raise
            scale *= STEP
        else:
            return tried
