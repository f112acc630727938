"""Figures on the console: used hosts are said to be merged, false alarms stand by kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import veilwatch
from tests.learning.comparison.factory import capture_corpus
from tests.report import factory
from veilwatch.cli.figures import MERGED, SHOWN_KINDS, print_figures, print_kinds


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_used_hosts_are_said_to_be_merged(capsys: pytest.CaptureFixture[str]) -> None:
    figures: dict[str, Any] = factory.evaluation()
    print_figures(figures, title="A title", emulated=False)
    assert MERGED not in printed(capsys)
    figures |= {"used_host_x1": figures["flow"], "used_host_x3": figures["flow"]}
    print_figures(figures, title="A title", emulated=False)
    text = printed(capsys)
    assert MERGED in text and "used hosts x1" in text and "used hosts x3" in text


def test_false_alarms_by_kind_are_bounded_and_inert(capsys: pytest.CaptureFixture[str]) -> None:
    print_kinds({})
    assert printed(capsys) == ""
    print_kinds(
        {"benign_kinds": {"vpn": {"n": 7, "alerted": 0}, "\x1b[2Jad": {"n": 3, "alerted": 1}}}
    )
    text = printed(capsys)
    assert "\x1b" not in text and text.index("\\x1b[2Jad 3 1") < text.index("vpn 7 0")
    print_kinds({"benign_kinds": {f"k-{k}": {"n": 9, "alerted": k % 9} for k in range(300)}})
    text = printed(capsys)
    assert text.count("k-") == SHOWN_KINDS and f"{300 - SHOWN_KINDS} more kinds" in text


def test_evaluate_holds_out_publishers(tmp_path: Path) -> None:
    settings = ["" if k % 2 else "enterprise-ad" for k in range(16)]
    manifest = capture_corpus(
        tmp_path / "c", captures=16, flows=2, services=12, columns={"setting": settings}
    )
    words = ("--corpus", manifest, "--split", "publisher", "--folds", "2", "--threads", "1")
    done = veilwatch("evaluate", *words, "-o", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "publisher held out" in text and "used hosts x1 8 8" in text
    assert "enterprise-ad 8" in text and MERGED in text
    page = (tmp_path / "page.html").read_text()
    assert "enterprise-ad" in page and "Used hosts x1 (merged captures)" in page
