"""Every module has a test file of its own or is listed, and the list has no line too many."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from scripts import twin_tests

from tests.conftest import ROOT


def test_every_module_has_its_twin_or_is_listed() -> None:
    assert twin_tests.faults(ROOT) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three modules, of which one has its twin and one is listed."""
    for name in ("a/one.py", "a/deep/two.py", "three.py", "a/__init__.py"):
        path = tmp_path / "src" / "veilwatch" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    twin = tmp_path / "tests" / "a" / "test_deep_two.py"
    twin.parent.mkdir(parents=True)
    twin.touch()
    (tmp_path / "tests" / "without_twin.txt").write_text("# why\nthree.py\na/one.py\n")
    return tmp_path


def test_a_list_that_is_right_has_no_fault(tree: Path) -> None:
    assert twin_tests.faults(tree) == []
    before = (tree / twin_tests.LIST).read_text()
    twin_tests.prune(tree)
    assert (tree / twin_tests.LIST).read_text() == before


def test_a_new_module_wants_a_twin(tree: Path) -> None:
    (tree / "src" / "veilwatch" / "a" / "four.py").touch()
    assert twin_tests.faults(tree) == ["a/four.py: write tests/a/test_four.py"]
    twin_tests.prune(tree)  # which never adds
    assert twin_tests.listed(tree) == ["three.py", "a/one.py"]


def test_a_module_that_got_its_twin_or_is_gone_leaves_the_list(tree: Path) -> None:
    (tree / "tests" / "test_a_one.py").touch()
    (tree / "src" / "veilwatch" / "three.py").unlink()
    assert [line.partition(":")[0] for line in twin_tests.faults(tree)] == ["three.py", "a/one.py"]
    twin_tests.prune(tree)
    assert twin_tests.faults(tree) == []
    assert (tree / twin_tests.LIST).read_text() == "# why\n"


def test_a_line_stands_once(tree: Path) -> None:
    with (tree / twin_tests.LIST).open("a") as stream:
        stream.write("three.py\n")
    assert twin_tests.faults(tree) == ["three.py: stands twice in tests/without_twin.txt"]


def test_any_folder_may_be_taken_into_the_name() -> None:
    assert [str(path) for path in twin_tests.twins(PurePosixPath("a/b/c.py"))] == [
        "tests/a/b/test_c.py",
        "tests/a/test_b_c.py",
        "tests/test_a_b_c.py",
    ]
