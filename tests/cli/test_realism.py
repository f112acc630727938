"""`veilwatch corpus realism` as a user runs it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.helpers import veilwatch
from tests.learning.comparison.factory import capture_corpus
from veilwatch.corpus.manifest import read_manifest, write_manifest


@pytest.fixture
def manifests(tmp_path: Path) -> tuple[Path, Path]:
    """The same captures, once said to be emulated."""
    for name in ("emulated", "real"):
        (tmp_path / name).mkdir()
        capture_corpus(tmp_path / name, captures=24)
    emulated = tmp_path / "emulated" / "MANIFEST.csv"
    entries = read_manifest(emulated)
    write_manifest(emulated, [replace(e, extra=e.extra | {"emulated": "1"}) for e in entries])
    return emulated, tmp_path / "real" / "MANIFEST.csv"


def test_table_and_document(manifests: tuple[Path, Path]) -> None:
    done = veilwatch("corpus", "realism", *manifests, "--threads", "1", "--features", "2")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "told apart" in said and "holds for emulated traffic" in said
    done = veilwatch("corpus", "realism", *manifests, "--threads", "1", "--json")
    samples = json.loads(done.stdout)["samples"]
    assert {item["label"] for item in samples} == {"malicious", "benign"}


def test_manifests_in_the_wrong_order_are_refused(manifests: tuple[Path, Path]) -> None:
    done = veilwatch("corpus", "realism", *reversed(manifests))
    assert done.returncode == 2
    assert "not marked as emulated" in done.stderr and "Traceback" not in done.stderr
