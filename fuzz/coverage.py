"""Which Python code guides a fuzzer: whole modules, but no kernels, which Numba reads as is."""

from __future__ import annotations

import inspect
from types import FunctionType, ModuleType

import atheris


def guide_by(*modules: ModuleType) -> None:
    """Count branches of all functions and methods that the modules define, in place."""
    for module in modules:
        for value in vars(module).values():
            if getattr(value, "__module__", None) != module.__name__:
                continue
            members = vars(value).values() if inspect.isclass(value) else [value]
            for member in members:
                function = getattr(member, "fget", getattr(member, "__func__", member))
                if isinstance(function, FunctionType):
                    atheris.instrument_func(function)
