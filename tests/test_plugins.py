"""Detectors and sinks of other packages, found by entry points."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from veilwatch import plugins
from veilwatch.errors import PluginError, VeilwatchError
from veilwatch.learning.comparison.jobs import Job
from veilwatch.learning.detectors import DETECTORS
from veilwatch.learning.detectors.table import DetectorTable
from veilwatch.sinks.base import SCHEMES, known_schemes, open_sink, sink_class

DETECTOR = """
class Detector:
    name = "{name}"
    feature_sets = ("statistics",)
    unit = "flow"
    def fit(self, training, settings, progress=None): ...
    def predict_proba(self, features): ...
    def explain(self, features): ...
    def save(self, folder): ...
    @classmethod
    def load(cls, folder, schema): ...
"""

SINK = '''
from veilwatch import Sink
class Nowhere(Sink):
    """Keeps nothing."""
    def encode(self, event): return b""
    def deliver(self, letters, tally): ...
'''

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lays a package with entry points into a folder that modules are looked for in."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def lay(package: str, group: str, entries: dict[str, str], code: str) -> Path:
        module = package.replace("-", "_")
        made.append(module)
        (tmp_path / f"{module}.py").write_text(code)
        about = tmp_path / f"{module}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{target}\n" for name, target in entries.items()]
        (about / "entry_points.txt").write_text(f"[{group}]\n{''.join(lines)}")
        importlib.invalidate_caches()
        plugins.plugins.cache_clear()
        return tmp_path / f"{module}.py"

    yield lay
    plugins.plugins.cache_clear()
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def table() -> DetectorTable:
    return DetectorTable(lightgbm="LightGBMDetector")


def test_a_detector_is_found_and_loaded_when_it_is_asked_for(
    install: Install, table: DetectorTable
) -> None:
    install("vw-one", plugins.DETECTORS, {"one": "Detector"}, DETECTOR.format(name="one"))
    assert list(table) == ["lightgbm", "one"] and len(table) == 2
    assert "one" in table and "two" not in table
    assert "vw_one" not in sys.modules
    assert table["one"].name == "one"
    assert "vw_one" in sys.modules


def test_our_own_detectors_cannot_be_replaced(install: Install, table: DetectorTable) -> None:
    install("vw-bad", plugins.DETECTORS, {"lightgbm": "Detector"}, "raise RuntimeError")
    assert list(table) == ["lightgbm"] and len(table) == 1
    assert table["lightgbm"].__module__ == "veilwatch.learning.detectors.lightgbm"


def test_our_own_are_found_without_looking_for_others(
    table: DetectorTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(group: str) -> None:
        raise AssertionError("looked for plugins")

    monkeypatch.setattr(plugins, "plugins", never)
    assert "lightgbm" in table and table["lightgbm"] and table.code_version("lightgbm") == ""
    assert sink_class("eve+file")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no such library')", "RuntimeError: no such library"),
        ("", "AttributeError"),
        ("Detector = 3", "no detector of the name 'one'"),
        (DETECTOR.format(name="two"), "no detector of the name 'one'"),
        ("class Detector:\n    name = 'one'\n", "no detector of the name 'one'"),
    ],
)
def test_a_plugin_that_is_none_is_named(
    code: str, said: str, install: Install, table: DetectorTable
) -> None:
    install("vw-one", plugins.DETECTORS, {"one": "Detector"}, code)
    with pytest.raises(PluginError) as caught:
        table["one"]
    assert said in str(caught.value)
    assert "vw-one 1.0" in str(caught.value) or "vw_one:Detector" in str(caught.value)


def test_two_packages_with_one_name(install: Install, table: DetectorTable) -> None:
    for package in ("vw-one", "vw-two"):
        install(package, plugins.DETECTORS, {"one": "Detector"}, DETECTOR.format(name="one"))
    with pytest.raises(PluginError, match=r"vw-(one|two) 1\.0 and vw-(one|two) 1\.0"):
        table["one"]
    assert table["lightgbm"]


def test_what_is_not_installed(install: Install, table: DetectorTable) -> None:
    with pytest.raises(KeyError):
        table["none"]
    assert table.code_version("none") == ""


def test_folds_of_changed_code_are_not_kept(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key() -> str:
        return Job("m", "one", "group", 0, 2, 7, 1, False, False).key("corpus")

    file = install("vw-one", plugins.DETECTORS, {"one": "Detector"}, DETECTOR.format(name="one"))
    assert DETECTORS.code_version("one").startswith("vw-one 1.0 ")
    before = key()
    assert key() == before
    file.write_text(DETECTOR.format(name="one") + "# another\n")
    assert key() != before


def test_a_sink_is_found_by_its_scheme(install: Install) -> None:
    install("vw-sink", plugins.SINKS, {"nowhere+file": "Nowhere", "eve+file": "Nowhere"}, SINK)
    assert list(known_schemes()) == [*SCHEMES, "nowhere+file"]
    assert "vw-sink 1.0" in known_schemes()["nowhere+file"].what
    assert known_schemes()["eve+file"] == SCHEMES["eve+file"]
    with open_sink("nowhere+file:///tmp") as sink:
        assert type(sink).__name__ == "Nowhere"
    with pytest.raises(VeilwatchError, match=r"did you mean nowhere\+file"):
        open_sink("nowere+file:///tmp")


def test_a_sink_that_is_none(install: Install) -> None:
    install("vw-sink", plugins.SINKS, {"nowhere+file": "Nowhere"}, "class Nowhere: ...")
    with pytest.raises(PluginError, match="is no sink"):
        open_sink("nowhere+file:///tmp")
