"""Compiled kernels: one decorator and one private cache for all of them.

Numba's own cache does not notice a change in a function imported from another module. The
cache folder therefore carries a hash of every source file that holds kernels, and is ours
alone (mode 0700): the cache holds machine code and an index of pickles, so nobody else may write to
it, nor to a folder above it (`veilwatch.private`).
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import numba
from numba.core.caching import NullCache
from numba.core.registry import cpu_target

from veilwatch.imports import hidden
from veilwatch.private import why_not_private

SOURCE_ROOMS = ("schema", "capture", "decode", "flow", "handshake", "subscriber", "pipeline")
SOURCE_FILES = ("traffic/hashing.py", "traffic/packet_time.py")
"""Packages and files whose sources take part in the hash of what is read from a capture: every
kernel, every dtype and all that shapes a flow table lives in one."""

DTYPE_ROOM = "schema"
"""The package whose dtypes and constants are compiled into kernels."""

CONSTANT_FILES = (
    "traffic/capture/fault.py",
    "traffic/capture/live/options.py",
    "traffic/decode/counters.py",
    "traffic/flow/state.py",
)
"""Files without a kernel whose constants and types kernels compile in."""


def _sources() -> list[Path]:
    root = Path(__file__).parent
    paths = [root / name for name in SOURCE_FILES]
    for room in SOURCE_ROOMS:
        paths += sorted((root / room).rglob("*.py"))
    return paths


def kernel_sources() -> list[Path]:
    """Return the files that machine code is made from: kernels, and the types that they compile in.

    A kernel is known by its decorator's import. A test holds that kernels take no constant from any
    other file.
    """
    root = Path(__file__).parent
    schema, constants = root / DTYPE_ROOM, {root / name for name in CONSTANT_FILES}
    return [
        path
        for path in _sources()
        if schema in path.parents
        or path in constants
        or b"from veilwatch.jit import" in path.read_bytes()
    ]


def _hash_of(paths: list[Path]) -> str:
    digest = hashlib.sha256(platform.python_version().encode())
    for path in paths:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def source_hash() -> str:
    """Return a hash of every source that shapes a flow table, for what is kept of captures."""
    return _hash_of(_sources())


def kernel_hash() -> str:
    """Return a hash of the sources of the kernels alone, for the cache of compiled ones."""
    return _hash_of(kernel_sources())


def installation_hash() -> str:
    """Return what tells this installation from another of the same sources.

    Numba keeps kernels by place and time of their source files: the same version installed
    elsewhere, or once more, compiles anew.
    """
    digest = hashlib.sha256()
    for path in kernel_sources():
        digest.update(f"{path}\0{path.stat().st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def cache_home() -> Path:
    """Return the folder of what Veilwatch keeps between runs; `VEILWATCH_CACHE` overrides it."""
    override = os.environ.get("VEILWATCH_CACHE")
    if override:
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "veilwatch"


def kernel_cache() -> Path:
    """Return the folder of compiled kernels that belongs to these very sources."""
    return cache_home() / f"kernels-{kernel_hash()}"


def _prepare_cache() -> str:
    """Make the folder and name it to Numba; return why that cannot be, '' if it was done."""
    folder = kernel_cache()
    try:
        cache_home().mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    fault = why_not_private(folder)
    if not fault:
        numba.config.CACHE_DIR = str(folder)
    return fault


CACHE_FAULT: Final = _prepare_cache()
"""Why kernels are not kept between runs, '' where they are. A cache that somebody else could write
to, or that cannot be made, is not used at all: kernels are then compiled anew in each process."""

F = TypeVar("F", bound=Callable[..., Any])

_kernels: list[Any] = []


def kernel(function: F) -> F:
    """Compile `function` in nopython mode with bounds checks, without the GIL, cached."""
    compiled: F = numba.njit(boundscheck=True, nogil=True, cache=not CACHE_FAULT)(function)
    _kernels.append(compiled)
    return compiled


def leave_cache() -> None:
    """Compile what is not loaded yet in memory from now on.

    For a process that becomes another user, who may not read our cache.
    """
    for compiled in _kernels:
        compiled._cache = NullCache()


def load_numba() -> None:
    """Load what Numba needs to take kernels from the cache, without what no kernel of ours uses.

    It asks for SciPy's linear algebra and for cffi, and takes twice as long with them.
    """
    with hidden("scipy.linalg", "cffi"):
        cpu_target.typing_context.refresh()
        cpu_target.target_context.refresh()


def inline_kernel(function: F) -> F:
    """Compile a helper that kernels call, and tests or other Python code too.

    LLVM inlines it where that pays. What only kernels call is an `inner_kernel`.
    """
    compiled: F = numba.njit(boundscheck=True, nogil=True)(function)
    return compiled


def inner_kernel(function: F) -> F:
    """Compile a helper as `inline_kernel` does, but so that Python itself cannot call it.

    Without the wrapper for that a quarter of the time of compilation is spared, which counts where
    there are hundreds of helpers.
    """
    compiled: F = numba.njit(
        boundscheck=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
    )(function)
    return compiled
