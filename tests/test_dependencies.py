"""What a sensor installs is what it runs; what is missing is named with its extra."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripts import lowest

from tests.conftest import ROOT
from veilwatch.errors import MissingExtraError
from veilwatch.extras import from_extra
from veilwatch.learning.detectors import DETECTORS
from veilwatch.learning.detectors.table import DetectorTable

BASE_BYTES: Final = 900_000_000
"""Most that a sensor's packages may take on disk, without the bytecode that pip compiles, which
depends on how they are installed: a sensor is set up on small machines and over slow lines."""

OF_EXTRAS: Final = (
    *("torch", "onnx", "gensim", "sklearn", "catboost", "pandas", "matplotlib", "plotly"),
    *("psycopg", "confluent_kafka", "pycrate_mobile", "hypothesis", "pytest", "packaging"),
)
"""Modules that only extras install. `packaging` comes with ONNX Runtime, which is no promise."""

OF_A_SENSOR: Final = (
    *("cli", "corpus", "detection", "export", "schema", "sensor", "sinks", "store", "traffic"),
    *("learning.features", "learning.models", "report.detection", "report.field"),
)
"""Packages that hold what a sensor and an analyst run."""


def project() -> dict[str, object]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def closure(requirements: list[str]) -> set[str]:
    """Return the names of all packages that these bring with them on this machine."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        if name in found or (need.marker and not need.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += map(Requirement, distribution(name).requires or [])
    return found


def size(name: str) -> int:
    files = distribution(name).files or []
    paths = [Path(str(distribution(name).locate_file(file))) for file in files]
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file())


def test_the_base_stays_small_and_holds_nothing_of_training() -> None:
    base = project()["dependencies"]
    assert isinstance(base, list)
    packages = closure(base)
    assert packages.isdisjoint(
        {"torch", "onnx", "gensim", "scikit-learn", "catboost", "pandas", "matplotlib"}
    )
    assert sum(map(size, packages)) < BASE_BYTES


def test_what_a_sensor_runs_loads_without_the_extras() -> None:
    code = f"""
import sys
for name in {OF_EXTRAS}:
    sys.modules[name] = None  # an import of it fails
import importlib, pkgutil
from veilwatch.imports import hidden
for name in {OF_A_SENSOR}:
    package = importlib.import_module("veilwatch." + name)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
from veilwatch.learning.detectors import DETECTORS
for name in ("lightgbm", "lstm", "mobilenet", "ensemble", "host_window", "header_words"):
    DETECTORS[name]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_detector_whose_library_is_missing_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "catboost", None)
    monkeypatch.delitem(sys.modules, "veilwatch.learning.detectors.catboost", raising=False)
    assert "catboost" in DETECTORS
    with pytest.raises(MissingExtraError) as caught:
        DetectorTable(catboost="CatBoostDetector")["catboost"]
    assert str(caught.value) == (
        "a model with CatBoost needs catboost, which is not installed (pip install '.[catboost]')"
    )


@pytest.mark.parametrize("verb", ["train", "evaluate", "compare"])
def test_training_without_the_extra_is_one_line(verb: str, tmp_path: Path) -> None:
    manifest = tmp_path / "corpus.csv"
    manifest.write_text("path,label\n", encoding="utf-8")
    code = (
        "import sys\n"
        "sys.modules['sklearn'] = None\n"
        f"sys.argv = ['veilwatch', {verb!r}, '--corpus', {str(manifest)!r}, "
        f"'-o', {str(tmp_path / 'out')!r}]\n"
        "from veilwatch.cli.main import run\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "needs scikit-learn, which is not installed (pip install '.[train]')" in done.stderr


def test_each_requirement_has_one_lower_bound_that_is_tried() -> None:
    tried = {need.partition("==")[0] for need in lowest.lowest()}
    base = project()["dependencies"]
    assert isinstance(base, list)
    assert {Requirement(text).name for text in base} <= tried
    assert len(lowest.tools()) == len(lowest.TOOLS)


def test_extras_that_are_named_exist() -> None:
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    for path in (ROOT / "src").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "from_extra(" in line and not line.lstrip().startswith(("def ", ">>>")):
                assert line.split('"')[1] in extras, path


def test_another_fault_of_an_import_is_not_taken_for_a_missing_extra() -> None:
    with pytest.raises(ImportError, match="cannot import"), from_extra("train", "training"):
        raise ImportError("cannot import name 'x'")
