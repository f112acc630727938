"""The training loop that all networks share.

Every random choice of an epoch comes from the seed and the epoch's number, so that a training goes
on from its last checkpoint exactly as if it had not been interrupted. On one processor equal
threads give equal results; another number of threads adds in another order, and the last
digits differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from veilwatch.learning.detectors.base import TrainingSet
from veilwatch.learning.detectors.nets.architecture import Architecture, Matrix
from veilwatch.learning.detectors.nets.checkpoint import Arrays, Checkpoint
from veilwatch.learning.detectors.nets.plan import Plan
from veilwatch.learning.detectors.nets.sampling import Rows, draw, hold_back
from veilwatch.progress import Progress

POOL: Final = 16
"""Batches that are sorted by cost together: enough to save steps, few enough to stay random."""

WARM_UP: Final = 0.1
"""Share of the steps in which the learning rate rises."""

REPEATS: Final = 4
"""How often an epoch shows each flow of a small training set, on average, at most."""


@contextmanager
def repeatable(seed: int, threads: int) -> Iterator[None]:
    """Make PyTorch repeat itself within, and leave its settings as they were."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        # States of an LSTM that fade out pass through numbers that processors are slow at.
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            torch.use_deterministic_algorithms(before[1])
            torch.set_num_threads(before[0])


@dataclass(frozen=True, slots=True)
class TrainingItems:
    """Flows to learn from or to be judged by, with those that look the same put together.

    Attributes
    ----------
    item
        Rows of the distinct values, shape (items,).
    share
        float32, share of malicious flows among those that look so, shape (items,).
    times
        float32, how many there are, shape (items,).
    """

    item: Rows
    share: npt.NDArray[np.float32]
    times: npt.NDArray[np.float32]


class Loop:
    """A training from its first epoch, or from a checkpoint, to its end.

    Parameters
    ----------
    detector
        Says what the network sees.
    module
        The untrained network, on its device.
    """

    def __init__(
        self,
        detector: Architecture,
        module: Any,
        training: TrainingSet,
        plan: Plan,
        *,
        seed: int,
        device: str,
    ) -> None:
        self._detector, self._module, self._plan = detector, module, plan
        self._seed, self._device = seed, device
        values = np.asarray(training.features.values, np.float32)
        first, self._which = detector.distinct(values)
        self._values: Matrix = values[first]
        self._cost = detector.cost(self._values)
        self._malicious = training.malicious
        held = hold_back(training, np.random.default_rng([seed, 1]))
        self._shown = np.flatnonzero(~held)
        self._weight = training.weight[self._shown]
        self._checked = self._items(_checked_rows(held, training.weight, plan.checked, seed))
        self._optimizer = torch.optim.AdamW(
            module.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
        )
        self._samples = min(plan.samples, max(REPEATS * len(self._shown), plan.batch))
        self._epoch = 0
        self._best_loss, self._best_epoch = math.inf, 0
        self._best = _arrays(module.state_dict())

    def run(self, checkpoint: Checkpoint | None, progress: Progress) -> None:
        """Train to the end and leave the best state in the module."""
        state = checkpoint.load() if checkpoint else None
        if state is not None and self._resume(state):
            progress.note(f"{self._detector.name}: goes on after epoch {self._epoch}")
        while not self._over:
            self._train(progress)
            self._check()
            if checkpoint:
                checkpoint.store(self._state())
        _set(self._module, self._best)
        self._module.eval()

    @property
    def _over(self) -> bool:
        late = len(self._checked.item) and self._epoch - self._best_epoch >= self._plan.patience
        return self._epoch >= self._plan.epochs or bool(late)

    def _items(self, rows: Rows) -> TrainingItems:
        """Put rows that look the same together."""
        item, which, times = np.unique(self._which[rows], return_inverse=True, return_counts=True)
        malicious = np.bincount(which, self._malicious[rows], len(item))
        return TrainingItems(item, (malicious / times).astype(np.float32), times.astype(np.float32))

    def _train(self, progress: Progress) -> None:
        """Show an epoch's flows."""
        plan = self._plan
        rng = np.random.default_rng([self._seed, 2, self._epoch])
        torch.manual_seed(int(rng.integers(2**62)))
        items = self._items(self._shown[draw(self._weight, self._samples, rng)])
        batches = self._batches(items, rng)
        progress.start(
            f"{self._detector.name}: epoch {self._epoch + 1} of {plan.epochs}", len(batches)
        )
        self._module.train()
        usual = items.times.mean() * plan.batch
        for step, batch in enumerate(batches):
            for group in self._optimizer.param_groups:
                group["lr"] = self._rate(self._epoch + step / len(batches))
            self._optimizer.zero_grad()
            loss = self._losses(items, batch, plan.smoothing).sum() / usual
            loss.backward()
            nn.utils.clip_grad_norm_(self._module.parameters(), plan.clip)
            self._optimizer.step()
            progress.advance()
        self._epoch += 1

    def _losses(self, items: TrainingItems, batch: Rows, smoothing: float = 0.0) -> Any:
        """Return the cross entropy of a batch, item by item, times how often each was drawn."""
        values = self._values[items.item[batch]]
        target = items.share[batch] * (1 - smoothing) + np.float32(smoothing / 2)
        parts = [torch.from_numpy(part).to(self._device) for part in self._detector.inputs(values)]
        losses = nn.functional.binary_cross_entropy_with_logits(
            self._module(*parts)[:, 0],
            torch.from_numpy(target).to(self._device),
            reduction="none",
        )
        return losses * torch.from_numpy(items.times[batch]).to(self._device)

    def _batches(self, items: TrainingItems, rng: np.random.Generator) -> list[Rows]:
        """Cut an epoch into batches of items of like cost."""
        batches = []
        size = self._plan.batch
        rows = rng.permutation(len(items.item))
        for start in range(0, len(rows), size * POOL):
            pool = rows[start : start + size * POOL]
            pool = pool[np.argsort(self._cost[items.item[pool]], kind="stable")]
            batches += [pool[k : k + size] for k in range(0, len(pool), size)]
        return [batches[k] for k in rng.permutation(len(batches))]

    def _rate(self, epoch: float) -> float:
        """Return the learning rate at a time: up over `WARM_UP`, then down along a cosine."""
        share = epoch / self._plan.epochs
        if share < WARM_UP:
            return self._plan.learning_rate * (0.05 + 0.95 * share / WARM_UP)
        fallen = (share - WARM_UP) / (1 - WARM_UP)
        return self._plan.learning_rate * (1 + math.cos(math.pi * fallen)) / 2

    def _check(self) -> None:
        """Keep the state if it does best on what is held back, or if nothing is."""
        loss = self._held_loss() if len(self._checked.item) else -float(self._epoch)
        if loss < self._best_loss:
            self._best_loss, self._best_epoch = loss, self._epoch
            self._best = _arrays(self._module.state_dict())

    def _held_loss(self) -> float:
        self._module.eval()
        total, size = 0.0, 4 * self._plan.batch
        rows = np.argsort(self._cost[self._checked.item], kind="stable")
        with torch.no_grad():
            for start in range(0, len(rows), size):
                total += float(self._losses(self._checked, rows[start : start + size]).sum())
        return total / float(self._checked.times.sum())

    def _state(self) -> Arrays:
        """Return everything that the next epoch depends on."""
        out: Arrays = {
            "epoch": np.array(self._epoch),
            "best_epoch": np.array(self._best_epoch),
            "best_loss": np.array(self._best_loss),
        }
        out |= {f"module/{k}": v for k, v in _arrays(self._module.state_dict()).items()}
        out |= {f"best/{k}": v for k, v in self._best.items()}
        for number, values in self._optimizer.state_dict()["state"].items():
            out |= {f"optimizer/{number}/{k}": v.cpu().numpy() for k, v in values.items()}
        return out

    def _resume(self, state: Arrays) -> bool:
        """Take over a state; False, and nothing changed, if it is not one of this network."""
        parts: dict[str, Arrays] = {"module": {}, "best": {}, "optimizer": {}}
        try:
            numbers = int(state["epoch"]), int(state["best_epoch"]), float(state["best_loss"])
            for key, values in state.items():
                section, _, name = key.partition("/")
                if name:
                    parts[section][name] = values
            own = _arrays(self._module.state_dict())
            for section in ("module", "best"):
                if {k: v.shape for k, v in parts[section].items()} != {
                    k: v.shape for k, v in own.items()
                }:
                    return False
            optimizer = self._optimizer.state_dict()
            optimizer["state"] = _nested(parts["optimizer"])
            self._optimizer.load_state_dict(optimizer)
        except (KeyError, TypeError, ValueError):
            return False
        _set(self._module, parts["module"])
        self._best = parts["best"]
        self._epoch, self._best_epoch, self._best_loss = numbers
        return True


def _checked_rows(
    held: npt.NDArray[np.bool_], weight: npt.NDArray[np.float64], most: int, seed: int
) -> Rows:
    """Return rows to look at after each epoch, drawn by weight."""
    candidates = np.flatnonzero(held)
    if not len(candidates):
        return candidates
    count = min(most, len(candidates))
    return candidates[draw(weight[candidates], count, np.random.default_rng([seed, 3]))]


def _arrays(state: Mapping[str, Any]) -> Arrays:
    return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}


def _set(module: Any, arrays: Arrays) -> None:
    # A scalar array would become a NumPy number on the way, which PyTorch does not take.
    module.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()})


def _nested(flat: Arrays) -> dict[int, dict[str, Any]]:
    out: dict[int, dict[str, Any]] = {}
    for name, value in flat.items():
        number, _, key = name.partition("/")
        out.setdefault(int(number), {})[key] = torch.tensor(value)
    return out
