"""Numba's cache in a folder that we name, kernel by kernel.

Numba knows one cache folder for a whole process (`numba.config.CACHE_DIR`). A program that imports
us may have kernels of its own, which must stay where they are: here each of our kernels is given a
cache that looks into our folder, and nothing is set for the process.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    NullCache,
    _Cache,
    _CacheLocator,
    _SourceFileBackedLocatorMixin,
)


class _Locator(_SourceFileBackedLocatorMixin, _CacheLocator):  # type: ignore[misc]
    """Where the files of one kernel lie: below the folder, apart by the place of its source."""

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._py_file = inspect.getfile(function)
        self._lineno = function.__code__.co_firstlineno
        self._folder = folder / self.get_suitable_cache_subpath(self._py_file)

    def get_cache_path(self) -> str:
        return str(self._folder)


class _Files(CompileResultCacheImpl):  # type: ignore[misc]
    """How a compiled kernel is written: as Numba does it, but in no other place than ours.

    Numba's own constructor asks its locators, which an environment variable may replace.
    """

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._lineno = function.__code__.co_firstlineno
        self._locator = _Locator(function, folder)
        name = f"{Path(inspect.getfile(function)).stem}.{function.__qualname__}"
        self._filename_base = self.get_filename_base(name, getattr(sys, "abiflags", ""))


class _FolderCache(FunctionCache):  # type: ignore[misc]
    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        self._impl_class = partial(_Files, folder=folder)
        super().__init__(function)


class KernelCache(_Cache):  # type: ignore[misc]
    """The cache of one kernel, opened when the kernel is first called.

    Parameters
    ----------
    function
        The kernel's Python function.
    folder
        Returns where compiled kernels are kept; None where they are not kept.
    """

    def __init__(self, function: Callable[..., Any], folder: Callable[[], Path | None]) -> None:
        self._function = function
        self._folder = folder

    @cached_property
    def _opened(self) -> Any:
        folder = self._folder()
        return NullCache() if folder is None else _FolderCache(self._function, folder)

    @property
    def cache_path(self) -> Any:
        """Folder of this kernel's files, None where it is not kept."""
        return self._opened.cache_path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the kernel compiled for these types, None if it has to be compiled."""
        return self._opened.load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the kernel that was compiled for these types."""
        self._opened.save_overload(sig, data)

    def enable(self) -> None:
        """Look into the cache, as from the beginning."""
        self._opened.enable()

    def disable(self) -> None:
        """Compile without the cache from now on."""
        self._opened.disable()

    def flush(self) -> None:
        """Forget what was kept of this kernel."""
        self._opened.flush()
