"""`make check` runs the tests that belong to a change."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.changed_tests import chosen


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("store/test_query.py", "store/samples.py", "sensor/test_judge.py", "test_docs.py"):
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        (["src/veilwatch/store/query.py"], ["tests/store/test_query.py"]),
        (["src/veilwatch/store/tables.py"], ["tests/store"]),
        (["src/veilwatch/store/deep/rows.py"], ["tests/store"]),
        (["tests/store/test_query.py"], ["tests/store/test_query.py"]),
        (["tests/store/samples.py", "src/veilwatch/store/query.py"], ["tests/store"]),
        (["src/veilwatch/sensor/judge.py"], ["tests/sensor/test_judge.py"]),
        (["docs/x.md", "docs/y.md"], ["tests/test_docs.py"]),
        (["tests/store/test_gone.py", "Makefile", "tests/conftest.py", "src/veilwatch/jit.py"], []),
    ],
)  # fmt: skip
def test_tests_of_a_change(tree: Path, changed: list[str], wanted: list[str]) -> None:
    assert chosen(changed, tree) == wanted
