"""Packages that only some work needs: each belongs to an extra of this installation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from veilwatch.errors import MissingExtraError

DISTRIBUTIONS: Final = {"sklearn": "scikit-learn"}
"""Names to install by, where they differ from the name that is imported."""


@contextmanager
def from_extra(extra: str, work: str) -> Iterator[None]:
    """Import what an extra installs; where it is missing, one line says how to get it.

    Parameters
    ----------
    extra
        The extra's name in `pyproject.toml`.
    work
        What needs it, as the subject of a sentence.

    Raises
    ------
    MissingExtraError
        If a module that the block imports is not installed.

    Examples
    --------
    >>> with from_extra("train", "training"):
    ...     import no_such_package
    Traceback (most recent call last):
        ...
    veilwatch.errors.MissingExtraError: training needs no_such_package, which is not installed \
(pip install '.[train]')
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        raise MissingExtraError(
            f"{work} needs {DISTRIBUTIONS.get(package, package)}, which is not installed",
            hint=f"pip install '.[{extra}]'",
        ) from error
