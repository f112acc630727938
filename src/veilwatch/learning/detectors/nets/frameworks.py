"""Whether this installation can train networks."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from veilwatch.errors import TrainingError


def require_frameworks(names: Sequence[str] = ("torch", "onnx")) -> None:
    """Refuse to train without PyTorch, onnx and the like, which serving does without.

    Raises
    ------
    TrainingError
        If one of them is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise TrainingError(
                f"networks are trained with {name}, which is not installed",
                hint="pip install '.[train]'",
            )
