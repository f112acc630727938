"""The model that ships with the package, for whoever has none of their own.

It was trained on captures that others published (`make model`; docs/model-card.md says on which,
and where it fails). It is data like every model: loading it checks the hash of each file.
"""

from __future__ import annotations

from veilwatch.files import BOXED_MODEL
from veilwatch.learning.models.model import Model
from veilwatch.learning.models.persistence import load_model


def load_boxed_model() -> Model:
    """Read the model that ships with the package.

    Raises
    ------
    ModelError
        If it is missing or was changed: the package is damaged.
    """
    return load_model(BOXED_MODEL)
