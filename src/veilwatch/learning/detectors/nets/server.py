"""Serving networks with ONNX Runtime, always in blocks of one shape.

A matrix product may add in another order when it has fewer rows, and a score must not depend on
which flows are scored together. So rows go through the network in blocks of `BLOCK`, the last one
filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from veilwatch.errors import ModelError

# Only builds for Windows send telemetry; off in any case.
onnxruntime.disable_telemetry_events()

BLOCK: Final = 64
"""Flows that go through the network at a time: one costs as much as this many, and the activations
of more than this would no longer stay in the processor's cache."""

SCHEMA: Final = "veilwatch.schema"
"""Metadata entry of an ONNX file that holds the hash of the feature schema it was trained on."""

Inputs = tuple[npt.NDArray[Any], ...]
"""What a network takes, by position; the first axis of each array is the batch."""


class Network:
    """A network in ONNX form, on one thread; several threads may use it at one time.

    Parameters
    ----------
    content
        An ONNX file that `read_onnx` let pass, or that was just exported.
    where
        Where it came from, for errors.

    Raises
    ------
    ModelError
        If ONNX Runtime refuses it.
    """

    def __init__(self, content: bytes, where: Path | str = "") -> None:
        options = onnxruntime.SessionOptions()
        # Callers spread flows over processes; a second thread here would only wait.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # errors come as exceptions; the console is the caller's
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's own errors share no narrower base
            raise ModelError(
                "ONNX Runtime cannot load the network", where=where, hint="train the model anew"
            ) from error
        self.content = content
        self.schema = self._session.get_modelmeta().custom_metadata_map.get(SCHEMA, "")
        self._names = [item.name for item in self._session.get_inputs()]
        self._where = where

    def logits(self, count: int, inputs: Callable[[slice], Inputs]) -> npt.NDArray[np.float64]:
        """Return the log-odds of `count` rows, shape (count,).

        Parameters
        ----------
        inputs
            Makes the network's inputs of some of the rows.

        Raises
        ------
        ModelError
            If the network does not take them, or gives something other than a number each.
        """
        out = np.empty(count)
        for start in range(0, count, BLOCK):
            rows = slice(start, min(start + BLOCK, count))
            used = rows.stop - rows.start
            feed = dict(zip(self._names, map(_filled, inputs(rows)), strict=False))
            try:
                (answer,) = self._session.run(None, feed)
                found = np.asarray(answer, np.float64).reshape(BLOCK)
            except Exception as error:
                raise ModelError(
                    "the network does not take these features",
                    where=self._where,
                    hint="train the model anew",
                ) from error
            out[rows] = found[:used]
        return np.nan_to_num(out)


def _filled(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `part` with rows of zeros up to a whole block."""
    if len(part) == BLOCK:
        return part
    out = np.zeros((BLOCK, *part.shape[1:]), part.dtype)
    out[: len(part)] = part
    return out
