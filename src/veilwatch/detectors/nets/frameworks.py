"""Whether this installation can train networks."""

from __future__ import annotations

from importlib.util import find_spec

from veilwatch.errors import TrainingError


def require_frameworks() -> None:
    """Refuse to train without PyTorch and onnx, which serving does without.

    Raises
    ------
    TrainingError
        If one of them is not installed.
    """
    for name in ("torch", "onnx"):
        if find_spec(name) is None:
            raise TrainingError(
                f"networks are trained with {name}, which is not installed",
                hint="pip install 'veilwatch[train]'",
            )
