"""Nothing that names a place or a machine tells the classes apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from veilwatch.corpus.manifest import read_manifest
from veilwatch.traffic.pipeline.extract import FlowReader

IDENTIFIERS = [
    "src_port", "dst_port", "fwd_teid", "bwd_teid", "fwd_qfi", "fwd_ttl", "bwd_ttl",
    "fwd_mss", "bwd_mss", "fwd_wscale", "bwd_wscale", "fwd_window_first",
]  # fmt: skip


def numbers(text: list[str]) -> list[int]:
    return [int.from_bytes(bytes(map(int, address.split("."))), "big") for address in text]


@pytest.mark.slow
def test_a_model_given_only_identifiers_guesses(lab: Path) -> None:
    columns, labels, captures = [], [], []
    for index, entry in enumerate(read_manifest(lab)):
        with FlowReader([entry.file]) as reader:
            for table in reader:
                frame = table.frame
                known = [frame[name].cast(float).to_numpy() for name in IDENTIFIERS]
                for name in ("src_ip", "dst_ip", "outer_src_ip", "outer_dst_ip"):
                    known.append(np.array(numbers(frame[name].to_list()), float))
                columns.append(np.column_stack(known))
                labels += [entry.label == "malicious"] * frame.height
                captures += [index] * frame.height
    values, truth, capture = np.vstack(columns), np.array(labels), np.array(captures)
    assert 500 < truth.sum() < len(truth) - 500
    train = capture % 6 < 3  # those of one profile follow each other, variant by variant
    forest = RandomForestClassifier(100, min_samples_leaf=5, random_state=0)
    forest.fit(values[train], truth[train])
    guess = forest.predict_proba(values[~train])[:, 1]
    assert 0.35 < roc_auc_score(truth[~train], guess) < 0.65
