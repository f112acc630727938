"""Print the lowest versions that `pyproject.toml` allows, as requirements for pip.

Test tools come after them, in the versions of `constraints.txt`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

EXTRAS: Final = ("catboost", "kafka", "mobile", "postgres", "train")

LEFT_OUT: Final = ("torch", "onnx", "gensim")
"""What trains networks: gigabytes to fetch, and their own pins decide which versions meet."""

TOOLS: Final = ("hypothesis", "packaging", "pytest", "pytest-xdist", "scapy")


def lowest() -> list[str]:
    """Return `name==version` for each package and its lower bound.

    Raises
    ------
    ValueError
        If a requirement has anything but one lower bound.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in EXTRAS for need in project["optional-dependencies"][extra]),
    ]
    pinned = []
    for need in wanted:
        name, bound = need.split(">=")
        if not bound.replace(".", "").isdecimal():
            raise ValueError(f"{need}: one lower bound was expected")
        if name not in LEFT_OUT:
            pinned.append(f"{name}=={bound}")
    return pinned


def tools() -> list[str]:
    """Return `name==version` for each tool of the tests."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [pin for pin in pins if pin.partition("==")[0] in TOOLS]


if __name__ == "__main__":
    print(*lowest(), *tools(), sep="\n")
