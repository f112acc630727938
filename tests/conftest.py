"""Fixtures that more than one package's tests use, and what holds for the whole test run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from scapy.config import conf
from scapy.layers import l2

from tests.examples import USUAL, drawn
from tests.netns import wire  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parent.parent

# Threads of LightGBM that wait for each other are not to spin meanwhile: where several processes
# share the processors, that takes three times what the training itself does. Read when OpenMP is
# loaded, and by the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Building an Ethernet frame, Scapy asks the network for the MAC address of its destination (ARP).
# Tests send nothing: every destination has this locally administered address.
assert isinstance(conf.neighbor, l2.Neighbor)
conf.neighbor.resolve = lambda frame, packet: "02:00:00:00:00:02"


# How fast a machine draws examples says nothing about what is tested.
settings.register_profile(
    "tests",
    max_examples=drawn(USUAL),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Compile the kernels once, before several workers would each do it."""
    starts_workers = getattr(config.option, "dist", "no") != "no"
    if starts_workers and not hasattr(config, "workerinput"):
        words = [sys.executable, "-m", "veilwatch", "doctor", "--warm", "--quiet"]
        subprocess.run(words, check=True)


@pytest.hookimpl(tryfirst=True)  # before marks choose
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what draws examples, so that the slow lane runs it with all of them."""
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("property")


def find_corpus() -> Path | None:
    """Return the folder of real captures, or None where this machine has none."""
    named = os.environ.get("VEILWATCH_CORPUS")
    folder = Path(named) if named else ROOT.parent / "shared" / "corpus"
    return folder if (folder / "MANIFEST.csv").is_file() else None


@pytest.fixture(scope="session")
def corpus_path() -> Path:
    """The folder of real captures; the test is skipped where it is absent."""
    folder = find_corpus()
    if folder is None:
        pytest.skip("no folder of real captures (set VEILWATCH_CORPUS)")
    return folder
