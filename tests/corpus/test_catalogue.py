"""Flow tables of a corpus: extracted once, cached by content."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.learning.features.factory import Inner, played_packets, write
from tests.learning.training.factory import entry
from veilwatch.corpus import cache as cache_module
from veilwatch.corpus import catalogue
from veilwatch.corpus.catalogue import Corpus, load_corpus
from veilwatch.corpus.manifest import read_manifest, write_manifest
from veilwatch.errors import CorpusError, OutputError, VeilwatchError
from veilwatch.progress import Silent
from veilwatch.traffic.flow import MeterConfig
from veilwatch.traffic.pipeline import FlowReader


class Listener(Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, float | None]] = []
        self.notes: list[str] = []
        self.done = 0.0

    def start(self, task: str, total: float | None = None) -> None:
        self.tasks.append((task, total))

    def advance(self, amount: float = 1.0) -> None:
        self.done += amount

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def packets() -> list[Inner]:
    return played_packets()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A flow cache of its own; compiled kernels stay where they are."""
    monkeypatch.setattr(cache_module, "cache_home", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "flows"


@pytest.fixture
def manifest(cache: Path, packets: list[Inner], tmp_path: Path) -> Path:
    """Four captures, of which the last two are equal."""
    folder = tmp_path / "corpus"
    entries = [entry(k, label) for k, label in enumerate(["malicious", "benign"] * 2)]
    for k, item in enumerate(entries):
        place = folder / item.name
        place.parent.mkdir(parents=True, exist_ok=True)
        share = min(k, 2)
        write(place, packets[share * 150 : (share + 1) * 150])
    write_manifest(folder / "MANIFEST.csv", entries)
    return folder / "MANIFEST.csv"


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of captures that were really read."""
    names: list[str] = []
    extract = catalogue._extract

    def counting(source: Path, *rest: Any, **settings: Any) -> None:
        names.append(source.name)
        extract(source, *rest, **settings)

    monkeypatch.setattr(catalogue, "_extract", counting)
    return names


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def assert_same(one: Corpus, other: Corpus) -> None:
    assert one.flows.equals(other.flows)
    assert (one.entries, one.hashes, one.faults) == (other.entries, other.hashes, other.faults)


def test_flows_of_every_capture_one_below_the_other(manifest: Path) -> None:
    corpus = load_corpus(manifest, workers=1)
    assert corpus.faults == {} and not corpus.emulated
    assert corpus.flows["capture"].dtype == pl.UInt32
    assert corpus.flows["capture"].unique().sort().to_list() == [0, 1, 2, 3]
    for k, item in enumerate(corpus.entries):
        file = manifest.parent / item.name
        assert item.file == file
        assert corpus.hashes[item.name] == hashlib.sha256(file.read_bytes()).hexdigest()
        with FlowReader([file]) as reader:
            alone = reader.read_all().frame
        assert corpus.flows.filter(pl.col("capture") == k).drop("capture").equals(alone)


def test_a_second_run_reads_no_capture(manifest: Path, extracted: list[str]) -> None:
    listener = Listener()
    first = load_corpus(manifest, workers=1, progress=listener)
    assert extracted == ["0.pcap", "1.pcap", "3.pcap"]  # 2 and 3 are equal: one is read
    assert listener.tasks == [("flows of 3 captures", 3), ("reading 4 flow tables", 4)]
    assert listener.done == 7
    again = Listener()
    assert_same(load_corpus(manifest, workers=1, progress=again), first)
    assert len(extracted) == 3
    assert again.tasks == [("reading 4 flow tables", 4)] and again.done == 4


def test_a_moved_capture_is_found_by_its_content(manifest: Path, extracted: list[str]) -> None:
    first = load_corpus(manifest, workers=1)
    folder = manifest.parent
    moved = [replace(item, name=f"moved/{k}.pcap") for k, item in enumerate(first.entries)]
    (folder / "moved").mkdir()
    for old, new in zip(first.entries, moved, strict=True):
        old.file.rename(folder / new.name)
    write_manifest(manifest, moved)
    assert load_corpus(manifest, workers=1).flows.equals(first.flows)
    assert len(extracted) == 3


def test_changed_content_and_another_config_are_read_anew(
    manifest: Path, packets: list[Inner], extracted: list[str]
) -> None:
    first = load_corpus(manifest, workers=1)
    write(first.entries[0].file, packets[:20])
    second = load_corpus(manifest, workers=1)
    assert extracted[3:] == ["0.pcap"]
    assert not second.flows.equals(first.flows)
    cut = load_corpus(manifest, workers=1, config=MeterConfig(idle_timeout_s=0.001))
    assert extracted[4:] == ["0.pcap", "1.pcap", "3.pcap"]
    assert cut.flows.height > second.flows.height


def test_parallel_is_as_serial(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial = load_corpus(manifest, workers=1)
    monkeypatch.setattr(cache_module, "cache_home", lambda: tmp_path / "other")
    listener = Listener()
    assert_same(load_corpus(manifest, workers=2, progress=listener), serial)
    assert listener.done == 7


def test_small_captures_are_read_without_another_process(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("another process")

    monkeypatch.setattr(cache_module, "ProcessPoolExecutor", refuse)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    # Those of equal content are read once.
    size = sum(map(len, {entry.file.read_bytes() for entry in load_corpus(manifest).entries}))
    monkeypatch.setattr(cache_module, "ALONE_BYTES", size + 1)
    load_corpus(manifest, config=MeterConfig(idle_timeout_s=7))
    monkeypatch.setattr(cache_module, "ALONE_BYTES", size)
    with pytest.raises(RuntimeError, match="another process"):
        load_corpus(manifest, config=MeterConfig(idle_timeout_s=8))


def test_a_fault_is_reported_each_time(manifest: Path) -> None:
    capture = manifest.parent / "malicious" / "0.pcap"
    capture.write_bytes(capture.read_bytes()[:-5])
    for _ in range(2):
        corpus = load_corpus(manifest, workers=1)
        assert list(corpus.faults) == ["malicious/0.pcap"]
        assert "cut" in corpus.faults["malicious/0.pcap"]
        assert (corpus.flows["capture"] == 0).any()  # what could be read is kept


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_no_capture_is_one_line(workers: int, manifest: Path, cache: Path) -> None:
    capture = manifest.parent / "benign" / "1.pcap"
    capture.write_bytes(b"This is a letter and not a capture.\n" * 9)
    with pytest.raises(CorpusError) as caught:
        load_corpus(manifest, workers=workers)
    assert str(capture) in str(caught.value) and caught.value.hint
    assert not [name for name in files(cache) if not name.endswith(".parquet")]


def test_a_missing_capture(manifest: Path) -> None:
    (manifest.parent / "benign" / "1.pcap").unlink()
    with pytest.raises(CorpusError, match=r"benign/1\.pcap"):
        load_corpus(manifest, workers=1)


def test_a_capture_that_vanishes_meanwhile(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = read_manifest(manifest)
    entries[1].file.unlink()
    monkeypatch.setattr(catalogue, "read_manifest", lambda path: entries)
    with pytest.raises(CorpusError, match="cannot read"):
        load_corpus(manifest, workers=1)


def other_columns(path: Path) -> bytes:
    pl.DataFrame({"flow_id": [1]}).write_parquet(path)
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "zeroed", "other columns", "footer"])
def test_a_damaged_cache_entry_is_made_anew(
    damage: str, manifest: Path, cache: Path, tmp_path: Path, extracted: list[str]
) -> None:
    first = load_corpus(manifest, workers=1)
    victim = max(cache.rglob("*.parquet"), key=lambda path: path.stat().st_size)
    content = victim.read_bytes()
    half = len(content) // 2
    damaged = {
        "cut": content[:half],
        "empty": b"",
        "text": b"no parquet at all",
        "zeroed": content[:4] + bytes(len(content) - 8) + content[-4:],
        "other columns": other_columns(tmp_path / "other.parquet"),
        "footer": content[:-8] + b"\xff\xff\xff\x7f" + content[-4:],
    }
    victim.write_bytes(damaged[damage])
    listener = Listener()
    assert_same(load_corpus(manifest, workers=1, progress=listener), first)
    assert len(extracted) == 4
    assert len(listener.notes) == 1 and "damaged" in listener.notes[0]
    load_corpus(manifest, workers=1)
    assert len(extracted) == 4  # and it is whole again


def test_flipped_bytes_never_end_in_a_traceback(
    manifest: Path, cache: Path, extracted: list[str]
) -> None:
    load_corpus(manifest, workers=1)
    victim = max(cache.rglob("*.parquet"), key=lambda path: path.stat().st_size)
    content = victim.read_bytes()
    for k in range(60):
        at = (k * 7919 + 13) % len(content)
        # Most bytes are data; the footer is where structure is.
        at = at if k % 2 else len(content) - 1 - at % 2000
        victim.write_bytes(content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :])
        found = catalogue._read(victim)
        assert found is None or isinstance(found, pl.DataFrame)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interruption_leaves_no_half_entry(
    error: BaseException,
    manifest: Path,
    cache: Path,
    extracted: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_parquet, calls = pl.DataFrame.write_parquet, []

    def failing(self: pl.DataFrame, stream: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            stream.write(b"PAR1 and then")
            raise error
        write_parquet(self, stream, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pl.DataFrame, "write_parquet", failing)
        with pytest.raises((KeyboardInterrupt, OutputError)):
            load_corpus(manifest, workers=1)
    assert len(files(cache)) == 1 and files(cache)[0].endswith(".parquet")
    load_corpus(manifest, workers=1)
    assert extracted == ["0.pcap", "1.pcap", "1.pcap", "3.pcap"]  # the first is not read again


def test_a_cache_that_cannot_be_written(manifest: Path, cache: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(VeilwatchError, match="cannot write"):
        load_corpus(manifest, workers=1)


def test_a_capture_without_packets(manifest: Path) -> None:
    write(manifest.parent / "benign" / "1.pcap", [])
    corpus = load_corpus(manifest, workers=1)
    assert corpus.flows["capture"].unique().sort().to_list() == [0, 2, 3]


@pytest.mark.parametrize(("mark", "emulated"), [("1", True), ("True", True), ("0", False)])
def test_emulated_captures_mark_the_corpus(mark: str, emulated: bool, manifest: Path) -> None:
    corpus = load_corpus(manifest, workers=1)
    first = replace(corpus.entries[0], extra={"emulated": mark})
    assert replace(corpus, entries=[first, *corpus.entries[1:]]).emulated == emulated
