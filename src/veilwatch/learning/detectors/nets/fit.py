"""From labelled flows to a network that ONNX Runtime serves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch

from veilwatch import __version__
from veilwatch.errors import TrainingError
from veilwatch.learning.detectors.base import DetectorSettings, TrainingSet
from veilwatch.learning.detectors.evidence import probability
from veilwatch.learning.detectors.nets.architecture import Architecture, Matrix
from veilwatch.learning.detectors.nets.checkpoint import checkpoint_of
from veilwatch.learning.detectors.nets.loop import Loop, repeatable
from veilwatch.learning.detectors.nets.plan import Plan
from veilwatch.learning.detectors.nets.server import SCHEMA, Network
from veilwatch.progress import Progress

PARITY: Final = 1e-4
"""Largest difference in score between a trained network and its exported form."""

COMPARED: Final = 256
"""Flows on which the two are compared."""

# PyTorch wants this, before CUDA starts, to give the same products on each run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def fit_network(
    detector: Architecture,
    training: TrainingSet,
    parameters: Mapping[str, Any],
    plan: Plan,
    settings: DetectorSettings,
    progress: Progress,
) -> Network:
    """Train a network, on a GPU where there is one, and return its exported form.

    Raises
    ------
    TrainingError
        If the exported form answers otherwise.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = settings.threads or os.cpu_count() or 1
    checkpoint = None
    if settings.checkpoints is not None:
        versions = [__version__, torch.__version__, device, threads]
        checkpoint = checkpoint_of(
            settings.checkpoints,
            detector.name,
            training,
            parameters,
            plan,
            settings.seed,
            versions,
        )
    values = np.asarray(training.features.values, np.float32)
    with repeatable(settings.seed, threads):
        module = detector.build(parameters, values.shape[1]).to(device)
        loop = Loop(
            detector,
            module,
            training,
            plan,
            seed=settings.seed,
            device=device,
        )
        loop.run(checkpoint, progress)
        module = module.cpu()
        content = detector.export(module, {SCHEMA: training.features.schema.hash})
        network = Network(content)
        check_parity(detector, module, network, values)
    return network


def check_parity(detector: Architecture, module: Any, network: Network, values: Matrix) -> None:
    """Refuse an exported network that does not answer like the trained one.

    Raises
    ------
    TrainingError
        If their scores differ by more than `PARITY` on some flow.
    """
    some = values[:: max(1, len(values) // COMPARED)]
    with torch.no_grad():
        parts = [torch.from_numpy(part) for part in detector.inputs(some)]
        wanted = torch.sigmoid(module(*parts)[:, 0]).numpy()
    worst = float(np.abs(probability(detector.logits(network, some)) - wanted).max())
    if not worst <= PARITY:  # not a number is no agreement either
        raise TrainingError(
            f"the exported {detector.name} scores {worst:.1e} away from the trained one",
            hint="report this with the versions of torch, onnx and onnxruntime",
        )
