"""Reasons in words that an analyst can check."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from veilwatch.detection.scoring.explain import SHOWN_REASONS, _quantity, reasons
from veilwatch.learning.models import BenignRange
from veilwatch.schema.features import FeatureFrame, FeatureSchema, FeatureSpec
from veilwatch.schema.scores import Reason

SPECS = (
    FeatureSpec("pause_mean", "s", "Mean silence longer than 1 s"),
    FeatureSpec("fwd_bytes", "bytes", "IP bytes from the initiator"),
    FeatureSpec("cert_key_bits", "bit", "Size of the key"),
    *[FeatureSpec(f"more_{k}", "", f"Another {k}") for k in range(7)],
)
RANGES = {
    "pause_mean": BenignRange(low=1.2, median=3.0, high=9.84),
    "fwd_bytes": BenignRange(low=40, median=900, high=220000),
}


def explain(values: Sequence[float], contributions: Sequence[float]) -> list[list[Reason]]:
    features = FeatureFrame(
        FeatureSchema("test", 1, SPECS),
        np.array([values], np.float32),
        pl.DataFrame({"flow_id": [1]}),
    )
    return reasons(features, np.array([contributions]), RANGES)


def test_the_strongest_come_first_whatever_their_sign() -> None:
    (found,) = explain([0.0] * 10, [0.1, -3.0, 0.2, 2.0, 0, 0, 0.4, -0.3, 0.5, 0.05])
    assert len(found) == SHOWN_REASONS == 6
    assert [reason.contribution for reason in found] == [-3.0, 2.0, 0.5, 0.4, -0.3, 0.2]
    assert [reason.feature for reason in found][:2] == ["fwd_bytes", "more_0"]


def test_the_words() -> None:
    (found,) = explain([64.25, 250_000, math.nan] + [0] * 7, [3, 2, 1] + [0] * 7)
    assert [reason.text for reason in found[:3]] == [
        "Mean silence longer than 1 s: 64.2 s; benign flows mostly 1.2 to 9.84 s",
        "IP bytes from the initiator: 250,000 bytes; benign flows mostly 40 to 220,000 bytes",
        "Size of the key: does not apply",
    ]
    assert found[0].value == 64.25 and math.isnan(found[2].value)


def test_cells_of_a_picture_are_said_in_words() -> None:
    spec = FeatureSpec("cell_0", "cell", "Cell of telling packet 1")
    frame = FeatureFrame(
        FeatureSchema("test", 1, (spec,)), np.array([[31 * 32 + 31], [1024]], np.float32),
        pl.DataFrame({"flow_id": [1, 2]}),
    )  # fmt: skip
    found = reasons(frame, np.ones((2, 1)), {"cell_0": BenignRange(low=0, median=1, high=2)})
    assert [said[0].text for said in found] == [
        "Packets from the initiator, 1405 to 1499 bytes, 18.9 min to 30 min after the first",
        "Packets from the responder, no payload, within 1 ms of the first",
    ]


def test_no_flows() -> None:
    none = FeatureFrame(
        FeatureSchema("test", 1, SPECS), np.zeros((0, 10), np.float32), pl.DataFrame()
    )
    assert reasons(none, np.zeros((0, 10)), RANGES) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (1.0, "1 s"),
        (-1400.0, "-1,400 s"),
        (1234567.0, "1,234,567 s"),
        (1234.5678, "1,235 s"),
        (999.4, "999 s"),
        (12.345678, "12.3 s"),
        (0.05, "0.05 s"),
        (0.00012, "1.2e-04 s"),
        (999.6, "1,000 s"),
        (-0.25, "-0.25 s"),
        (3e38, "3.0e+38 s"),
    ],
)
def test_numbers_have_no_more_digits_than_tell_something(value: float, text: str) -> None:
    assert _quantity(value, "s") == text


def test_what_lies_where_benign_values_lie_is_no_reason() -> None:
    (found,) = explain([5.0, 1514, math.nan] + [0] * 7, [3, 2, 1] + [0] * 7)
    assert [reason.contribution for reason in found] == [1]
    (at_the_edge,) = explain([1.2, 40, math.nan] + [0] * 7, [3, 2, 0] + [0] * 7)
    assert at_the_edge == []
