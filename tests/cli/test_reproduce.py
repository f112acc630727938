"""`veilwatch reproduce`: bad input is one line, a small corpus works with --scaled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.cli.helpers import veilwatch
from veilwatch.traffic.capture import PcapWriter

HEAD = "file,label,family,is_ransomware,group,source_repo,capture_start\n"


def write_corpus(folder: Path, families: dict[str, int], benign: int) -> Path:
    """Tiny captures; malicious ones send longer payloads. Each is a group of its own."""
    rows = []
    for family, count in [*families.items(), ("", benign)]:
        for k in range(count):
            label = "malicious" if family else "benign"
            name = f"{family or 'benign'}-{k}.pcap"
            with PcapWriter(folder / name) as writer:
                for turn in range(4):
                    payload = Raw(b"x" * (700 if family else 20))
                    frame = Ether() / IP(src=f"10.0.{k}.1") / TCP(sport=k, seq=turn) / payload
                    writer.write(10**18 + turn, bytes(frame))
            rows.append(f"{name},{label},{family},0,{name},lab,2024-01-01\n")
    (folder / "M.csv").write_text(HEAD + "".join(rows))
    return folder / "M.csv"


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, (result.stdout, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith("veilwatch: ")]
    assert len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


FIVE = {"a": 7, "b": 6, "c": 6, "d": 6, "e": 6}


def test_too_few_captures_say_how_many_are_wanted(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, FIVE, 6)
    refused(
        veilwatch("reproduce", "header-words", "--corpus", manifest), "'a' has 7", "88", "--scaled"
    )


@pytest.mark.parametrize(
    ("families", "benign", "word"), [(FIVE, 0, "benign"), ({}, 6, "malicious")]
)
def test_one_class_only(families: dict[str, int], benign: int, word: str, tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, families, benign)
    refused(veilwatch("reproduce", "header-words", "--scaled", "--corpus", manifest), f"no {word}")


def test_merging_what_is_not_there(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, {"a": 2}, 2)
    words = ("reproduce", "header-words", "--corpus", manifest, "--merge")
    refused(veilwatch(*words, "x=zeus"), "zeus")
    refused(veilwatch(*words, "x"), "NAME=FAMILY")


def test_benign_captures_of_a_setting_that_is_not_there(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, FIVE, 6)
    words = ("reproduce", "header-words", "--scaled", "--corpus", manifest, "--benign", "office")
    refused(veilwatch(*words), "no benign capture of the setting 'office'")


def test_no_manifest(tmp_path: Path) -> None:
    refused(veilwatch("reproduce", "header-words", "--corpus", tmp_path / "none.csv"), "none.csv")


def test_an_installation_without_the_extra_says_its_name(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, {"a": 2}, 2)
    code = (
        "import sys\n"
        "from veilwatch.learning.detectors.nets import frameworks\n"
        "find = frameworks.find_spec\n"
        "frameworks.find_spec = lambda name: None if name == 'gensim' else find(name)\n"
        f"sys.argv = ['veilwatch', 'reproduce', 'header-words', '--corpus', {str(manifest)!r}]\n"
        "from veilwatch.cli.main import run\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    refused(done, "gensim", ".[train]")


@pytest.mark.slow
def test_a_scaled_run_prints_the_published_table_beside_its_own(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, FIVE, 6)
    result = veilwatch(
        *("reproduce", "header-words", "--corpus", manifest, "--scaled", "--threads", "1"),
        *("-o", tmp_path / "r.json"),
    )
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "r.json").read_text())
    assert not document["exact"] and document["scale"] < 1
    assert document["settings"][0]["name"] == "published"
    for phrase in (
        *("SCALED", "published paper", "positive class is benign", "0.929"),
        "a stands for the published family of 78 captures",
        "No publisher was held out: the 1 publishers",
    ):
        assert phrase in " ".join(result.stdout.split()), result.stdout
