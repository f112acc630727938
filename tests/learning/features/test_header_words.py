"""The feature set `header_words`: header tables side by side."""

from __future__ import annotations

import numpy as np

from tests.learning.features.factory import random_headers
from veilwatch.learning.features import FEATURE_SETS, capture_features
from veilwatch.schema.headers import ABSENT, HEADER_FIELDS, HEADER_PACKETS, HeaderTable

NAME = "header_words"
FIELDS = [field.name for field in HEADER_FIELDS]


def test_each_field_of_each_packet_has_its_column() -> None:
    tables = random_headers(5, seed=1)
    features = capture_features(tables, (NAME,), shortcuts=True)
    assert features.values.shape == (5, HEADER_PACKETS * len(FIELDS))
    assert features.values.dtype == np.float64 and features.schema.unit == "capture"
    place = {name: k for k, name in enumerate(features.schema.names)}
    for row, table in zip(features.values, tables, strict=True):
        for packet in (0, len(table) - 1, HEADER_PACKETS - 1):
            for k, field in enumerate(FIELDS):
                found = row[place[f"{field}_{packet}"]]
                if packet >= len(table) or table.values[packet, k] == ABSENT:
                    assert np.isnan(found)
                else:
                    scale = 1e9 if field == "gap" else 1
                    assert found == table.values[packet, k] / scale


def test_48_bits_stay_exact() -> None:
    values = np.full((1, len(FIELDS)), ABSENT, np.int64)
    values[0, FIELDS.index("eth_src")] = 2**48 - 1
    values[0, FIELDS.index("tcp_seq")] = 2**32 - 1
    features = capture_features([HeaderTable(values)], (NAME,), shortcuts=True)
    assert set(features.values[~np.isnan(features.values)]) == {2.0**48 - 1, 2.0**32 - 1}


def test_what_names_a_place_is_off_unless_asked_for() -> None:
    names = {name.rpartition("_")[0] for name in capture_features([], (NAME,)).schema.names}
    assert names == {
        *("ip_fragment_offset", "ip_protocol", "icmp_type", "icmp_code"),
        *("flow", "direction", "control", "payload", "gap"),
    }
    assert len(FEATURE_SETS[NAME].features) == HEADER_PACKETS * len(FIELDS)


def test_a_capture_without_packets_has_no_values() -> None:
    empty = HeaderTable(np.zeros((0, len(FIELDS)), np.int64))
    assert np.isnan(capture_features([empty], (NAME,)).values).all()
    assert capture_features([], (NAME,)).values.shape[0] == 0
