"""Families are named where they are known, and only there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.learning.training.factory import (
    MARKS,
    QUICK,
    entry,
    family_flows,
    make_family_corpus,
    make_model,
)
from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.detection.scoring import FlowScorer
from veilwatch.errors import ModelError
from veilwatch.learning.models import Model, load_model, save_model
from veilwatch.learning.training import TrainingOptions, train_model
from veilwatch.learning.training.families import Deal, Judged, deal_families, figures
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.scores import UNKNOWN_FAMILY

OPTIONS = TrainingOptions(folds=2, target_rate=0.05, settings=QUICK)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("families") / "MANIFEST.csv"
    path.write_text("made by the test\n")
    return train_model(make_family_corpus(), path, OPTIONS)


def field(*, hosts: int = 60, flows: int = 10, seed: int = 9) -> tuple[FlowTable, np.ndarray]:
    """Traffic of hosts of every family, of one that nobody knows, and of none (-1)."""
    kind = np.arange(hosts) % (len(MARKS) + 2) - 1
    host = np.repeat(np.arange(hosts), flows)
    frame = family_flows(kind[host], seed=seed).frame.with_columns(
        src_ip=pl.Series([f"10.1.0.{k}" for k in host.tolist()]), subscriber=pl.lit("")
    )
    return FlowTable(frame), kind


def named_hosts(model: Model, table: FlowTable) -> pl.DataFrame:
    """Return the hosts of traffic that arrives in three tables."""
    scorer = FlowScorer(model)
    for part in (table.frame[:7], table.frame[7:250], table.frame[250:]):
        scorer.add(FlowTable(part))
    return scorer.finish().hosts


def test_known_families_are_named_and_unknown_ones_are_not(tmp_path: Path) -> None:
    """Coverage is a promise on average over families, not for the one that comes next."""
    path = tmp_path / "MANIFEST.csv"
    path.touch()
    silent = []
    for seed in range(4):
        model = train_model(make_family_corpus(seed=seed), path, OPTIONS)
        table, kind = field(hosts=70, flows=12, seed=90 + seed)
        hosts = named_hosts(model, table)
        family, alert = np.array(hosts["family"].to_list()), hosts["alert"].to_numpy()
        known, unknown = alert & (kind >= 0) & (kind < len(MARKS)), alert & (kind == len(MARKS))
        assert known.sum() > 45 and unknown.sum() > 8
        truth = np.array([f"family-{k}" for k in kind])
        assert (family == truth)[known].mean() > 0.9
        certainty = hosts["family_probability"].to_numpy()
        assert certainty[unknown].max() < np.quantile(certainty[known], 0.05)
        silent.append((family == UNKNOWN_FAMILY)[unknown].mean())
    assert np.mean(silent) > 0.5 and max(silent) > 0.9


def test_a_host_is_named_only_if_it_alerts_and_the_name_is_sure(model: Model) -> None:
    hosts = named_hosts(model, field()[0])
    card = model.manifest.families
    assert card is not None and 0 < hosts["alert"].sum() < hosts.height
    for host in hosts.iter_rows(named=True):
        if not host["alert"]:
            assert (host["family"], host["family_probability"]) == ("", 0)
        elif host["family_probability"] < card.threshold:
            assert host["family"] == UNKNOWN_FAMILY
        else:
            assert host["family"] in card.names
    whole = FlowScorer(model)
    whole.add(field()[0])
    assert whole.finish().hosts.equals(hosts)


def test_the_card_counts_what_was_held_out(model: Model) -> None:
    card = model.manifest.families
    assert card is not None and model.families is not None
    assert card.names == [f"family-{k}" for k in range(len(MARKS))] == list(model.families.names)
    assert (card.captures, card.target_rate) == (25, 0.1)
    assert card.flows <= 25 * 12
    found = card.held_out
    assert found.known_captures + found.not_raised == 25
    assert found.unknown_captures == found.known_captures
    assert found.unknown_families == len(MARKS)
    parts = found.named_rightly + found.named_wrongly + found.called_unknown
    assert parts == found.known_captures
    assert found.named_rightly > 0.8 * found.known_captures
    assert found.unknown_called_unknown > 0.6 * found.unknown_captures
    assert set(found.by_family) == set(card.names)
    for name, count in found.by_family["family-0"].items():
        assert 0 <= count <= getattr(found, name)


def test_a_saved_model_names_the_same(model: Model, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", model)
    loaded = load_model(folder)
    assert loaded.manifest.families == model.manifest.families
    assert "family/families.txt" in loaded.manifest.files
    table, _ = field(hosts=14)
    found = []
    for one in (model, loaded):
        scorer = FlowScorer(one)
        scorer.add(table)
        found.append(scorer.finish().hosts)
    assert found[0].equals(found[1])
    # A model without families takes its place, and nothing of them is left behind.
    plain = model.manifest.model_copy(update={"families": None})
    save_model(folder, replace(model, manifest=plain, families=None))
    assert load_model(folder).families is None and not (folder / "family").exists()


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "link", "no folder"])
def test_damaged_families_are_refused(damage: str, model: Model, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", model)
    file = folder / "family" / "families.txt"
    if damage == "changed":
        file.write_text(file.read_text().replace("leaf", "lead", 1))
    elif damage == "added":
        (folder / "family" / "more").write_text("")
    elif damage == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    else:
        file.unlink()
        if damage == "no folder":
            file.parent.rmdir()
    with pytest.raises(ModelError, match="changed after training"):
        load_model(folder)


def test_the_manifest_and_the_model_must_agree(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="disagree about families"):
        save_model(tmp_path / "model", replace(model, families=None))
    assert not (tmp_path / "model").exists()
    folder = save_model(tmp_path / "model", model)
    path = folder / "model.json"
    document = json.loads(path.read_text())
    names = document["families"]["names"]
    for wrong, message in (
        ([*names, "one more"], "trees of 5 families, the manifest names 6"),
        (["", *names[1:]], "families.names"),
        (names[:1], "families.names"),
        ([*names[1:], "x" * 999], "families.names"),
    ):
        document["families"]["names"] = wrong
        path.write_text(json.dumps(document))
        with pytest.raises(ModelError, match=message):
            load_model(folder)


def test_families_are_an_option_and_need_enough_captures(tmp_path: Path) -> None:
    few, _ = make_model(tmp_path)
    assert few.families is None and few.manifest.families is None
    corpus = make_family_corpus(families=3)
    options = replace(OPTIONS, families=False)
    assert train_model(corpus, tmp_path / "MANIFEST.csv", options).families is None


def entries(**captures: int) -> list[CaptureEntry]:
    """Captures of families, each two of one group."""
    return [
        entry(k, "malicious", family=name.replace("_", "+"), group=f"{name} {k // 2}")
        for name, count in captures.items()
        for k in range(count)
    ]


def test_families_are_left_out_whole_and_groups_of_the_others() -> None:
    corpus = entries(a=20, b=9, c=5, d=4, e=4, f=4, rare=3, a_b=8, unspecifiedx=6)
    corpus += [entry(900, "malicious", group="one group", family="g") for _ in range(6)]
    corpus += [entry(k, "benign", family="a") for k in range(901, 905)]
    deal = deal_families(corpus, 7)
    assert deal.names == list("abcdef") and deal.folds == 5
    for k, item in enumerate(corpus):
        counted = item.label == "malicious" and item.family in {*"abcdefg", "rare"}
        assert (deal.left_out[k] >= 0) == counted
        assert (
            (deal.family[k] >= 0)
            == (deal.held_out[k] >= 0)
            == (counted and item.family in deal.names)
        )
        # What a capture shows as one of a known family, its own family was learned for.
        assert not counted or deal.held_out[k] != deal.left_out[k]
    for name in deal.names:
        mine = [k for k, item in enumerate(corpus) if item.family == name and deal.family[k] >= 0]
        assert len({deal.left_out[k] for k in mine}) == 1
        folds: dict[str, int] = {}
        for k in mine:
            assert folds.setdefault(corpus[k].group, deal.held_out[k]) == deal.held_out[k]
        assert len(set(folds.values())) >= 2, "all of a family is held out at once"
    again = deal_families(corpus, 7)
    np.testing.assert_array_equal(again.held_out, deal.held_out)
    assert deal_families(entries(a=9, b=9), 7).folds == 0


def test_each_fold_is_judged_at_a_threshold_that_the_others_set() -> None:
    """Fold 0's unknown captures are sure (0.9), fold 1's are not (0.6)."""
    family = np.array([0, 0, 1, 1])
    deal = Deal(["a", "b", "c"], family, np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
    unknown = Judged(np.full(4, 2), np.array([0.9, 0.9, 0.6, 0.6]), deal.left_out)
    known = Judged(np.array([0, 1, 1, -1]), np.array([0.95, 0.95, 0.61, 0]), deal.held_out)
    found = figures(known, unknown, deal, ["a", "a", "b", "b"])
    # Limits: just above 0.6 in fold 0, just above 0.9 in fold 1.
    assert (found.known_captures, found.unknown_captures, found.unknown_families) == (3, 4, 2)
    assert (found.named_rightly, found.named_wrongly, found.called_unknown) == (2, 1, 0)
    assert found.unknown_called_unknown == 2
    assert found.by_family["b"]["unknown_called_unknown"] == 2
    assert found.by_family["a"]["named_wrongly"] == 1
    assert found.by_family["c"]["known_captures"] == 0
