"""Compiled kernels: one decorator and one private cache for all of them.

Numba's own cache does not notice a change in a function imported from another module. The
cache folder therefore carries a hash of every source file that holds kernels, and is ours
alone (mode 0700): the cache holds machine code and an index of pickles, so nobody else may write to
it, nor to a folder above it (`veilwatch.private`).
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
from numba.core.caching import NullCache
from numba.core.registry import cpu_target

from veilwatch.imports import hidden
from veilwatch.numba_cache import KernelCache
from veilwatch.private import why_not_private

PACKAGES: Final = ("schema", "traffic")
"""Packages whose sources make flow tables, and hold every kernel and every dtype."""

CONSTANT_FILES: Final = (
    *("schema/flows.py", "schema/headers.py", "schema/packets.py", "schema/units.py"),
    *("traffic/capture/fault.py", "traffic/capture/live/options.py"),
    *("traffic/decode/counters.py", "traffic/flow/state.py"),
)
"""Files without a kernel whose dtypes, constants and types kernels compile in."""

_OPTIONS: Final[dict[str, bool]] = {"boundscheck": True, "nogil": True, "_nrt": False}
"""How all of them are compiled. Kernels own no memory: whoever calls them holds the arrays, so
nothing needs to be counted. Counting references of every array of a tuple was most of what a call
cost, and a third of the code. A kernel that allocates does not compile."""

OUTSIDE_TABLES: Final = (
    *(f"schema/{name}.py" for name in ("alerts", "convert", "counters", "events", "features")),
    *(f"schema/{name}.py" for name in ("scores", "verdicts")),
    "traffic/capture/live",
    "traffic/capture/rotate.py",
    "traffic/capture/writer.py",
    *(
        f"traffic/pipeline/{name}.py"
        for name in ("expression", "groupfiles", "grouping", "headers", "preload", "selection")
    ),
    *(f"traffic/pipeline/{name}.py" for name in ("split", "warm", "workers")),
)
"""Files and folders of these packages that no flow table of a capture file depends on."""


def _sources(root: Path) -> list[Path]:
    return [path for name in PACKAGES for path in sorted((root / name).rglob("*.py"))]


def table_sources() -> list[Path]:
    """Return the files that shape the flow table of a capture file."""
    root = Path(__file__).parent
    outside = {root / name for name in OUTSIDE_TABLES}
    return [path for path in _sources(root) if not outside.intersection((path, *path.parents))]


def kernel_sources() -> list[Path]:
    """Return the files that machine code is made from: kernels, and the types that they compile in.

    A kernel is known by its decorator's import. A test holds that kernels take no constant from any
    other file.
    """
    root = Path(__file__).parent
    constants = {root / name for name in CONSTANT_FILES}
    return [
        path
        for path in _sources(root)
        if path in constants or b"from veilwatch.jit import" in path.read_bytes()
    ]


def _hash_of(texts: Iterable[tuple[Path, bytes]]) -> str:
    digest = hashlib.sha256(platform.python_version().encode())
    for path, text in texts:
        digest.update(path.name.encode())
        digest.update(text)
    return digest.hexdigest()[:16]


def _without_words(path: Path) -> bytes:
    """Return a source as the interpreter sees it: no comments, no docstrings, no layout."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return ast.dump(tree).encode()


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@lru_cache(maxsize=1)
def source_hash() -> str:
    """Return a hash of the code that shapes a flow table, for what is kept of captures.

    Comments and docstrings do not count: other words do not make other tables.
    """
    return _hash_of((path, _without_words(path)) for path in table_sources())


def kernel_hash() -> str:
    """Return a hash of the sources of the kernels alone, for the cache of compiled ones."""
    texts = [(path, path.read_bytes()) for path in kernel_sources()]
    return _hash_of([*texts, (Path("options"), repr(_OPTIONS).encode())])


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


@lru_cache(maxsize=1)
def _prepare_cache() -> tuple[Path, str]:
    """Make the folder of compiled kernels; return it, and why it is not used, '' where it is.

    Decided once in a process, so that no other folder is used than the one that was looked at.
    """
    folder = kernel_cache()
    try:
        cache_home().mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        return folder, f"{folder}: {error.strerror or error}"
    return folder, why_not_private(folder)


def cache_fault() -> str:
    """Return why kernels are not kept between runs, '' where they are.

    A cache that somebody else could write to, or that cannot be made, is not used at all: kernels
    are then compiled anew in each process. This is decided when the first kernel is called and not
    by an import: a program that only imports us gets no folder.
    """
    return _prepare_cache()[1]


def _cache_folder() -> Path | None:
    folder, fault = _prepare_cache()
    return None if fault else folder


F = TypeVar("F", bound=Callable[..., Any])


_LONG_NAME: Final[Any] = numba.types.NamedTuple.mangling_args


def _short_name(named: numba.types.NamedTuple) -> tuple[str, tuple[Any, ...]]:
    """Return what the names of machine code hold of a named tuple.

    Numba spells out every field of every record in it, 15,000 characters in each name of a function
    that takes the meter's arrays: nine tenths of what is kept, and most of what loading it costs.
    Of plain tuples it writes the types' own short names, as this does. Named tuples of others keep
    the names that Numba gives them.
    """
    if not named.instance_class.__module__.startswith("veilwatch."):
        return cast("tuple[str, tuple[Any, ...]]", _LONG_NAME.fget(named))
    return named.instance_class.__name__, tuple(named.types)


numba.types.NamedTuple.mangling_args = property(_short_name)

_kernels: list[Any] = []


def kernel(function: F) -> F:
    """Compile `function` in nopython mode with bounds checks, without the GIL, cached.

    The cache is the kernel's own, and nothing is set for the process: a program that imports us may
    have kernels too.
    """
    compiled: Any = numba.njit(**_OPTIONS)(function)
    compiled._cache = KernelCache(function, _cache_folder)
    _kernels.append(compiled)
    return cast(F, compiled)


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
    compiled: F = numba.njit(**_OPTIONS)(function)
    return compiled


def inner_kernel(function: F) -> F:
    """Compile a helper as `inline_kernel` does, but so that Python itself cannot call it.

    Without the wrapper for that a quarter of the time of compilation is spared, which counts where
    there are hundreds of helpers.
    """
    compiled: Any = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)
    template = compiled.get_call_template

    def plain_template(types: Any, named: dict[str, Any]) -> Any:
        # Numba would compile it once for every constant that it is called with; LLVM puts constants
        # in where it inlines.
        plain = {name: numba.types.unliteral(value) for name, value in named.items()}
        return template([numba.types.unliteral(value) for value in types], plain)

    compiled.get_call_template = plain_template
    inner: F = compiled
    return inner
