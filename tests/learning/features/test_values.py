"""Every feature against a plain-Python computation of one flow at a time."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tests.learning.features import naive
from tests.learning.features.factory import random_flows
from veilwatch.learning.features import compute_features
from veilwatch.learning.features.sequence import STEPS
from veilwatch.learning.features.tls_numbers import EPHEMERAL
from veilwatch.schema.flows import SEQUENCE_LENGTH, FlowTable


def expected(table: FlowTable) -> dict[str, np.ndarray]:
    rows = [naive.statistics(row) | naive.sequence(row, STEPS) for row in table.frame.to_dicts()]
    return {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
        for name in rows[0]
    }


def assert_as_naive(table: FlowTable) -> None:
    found = compute_features(table, shortcuts=True)
    wanted = expected(table)
    assert set(found.schema.names) == set(wanted)
    for k, name in enumerate(found.schema.names):
        np.testing.assert_allclose(
            found.values[:, k], wanted[name], rtol=2e-6, atol=1e-9, err_msg=name
        )


def test_played_flows(flows: FlowTable) -> None:
    # The flows show what the features are made for; else this test would prove little.
    assert {"tls", "dns", "smb"} <= set(flows.frame["service"])
    assert flows.frame["cert_not_before_s"].null_count() < len(flows)
    assert (flows.frame["bwd_packets"] == 0).any()
    assert_as_naive(flows)


def test_random_flows() -> None:
    table = random_flows(300, seed=4)
    # ECDHE and TLS 1.3 only: what else is forward secret has a test of its own.
    ciphers = np.resize([0x1301, 0xC02F, 0xCCA8, 0x002F, 0x009C], len(table))
    assert_as_naive(
        FlowTable(table.frame.with_columns(pl.Series("tls_cipher", ciphers, pl.UInt16)))
    )


def test_no_packets_one_way_means_not_applicable(flows: FlowTable) -> None:
    silent = FlowTable(flows.frame.filter(pl.col("bwd_packets") == 0))
    features = compute_features(silent)
    for name in ("bwd_size_mean", "bwd_gap_variation", "bwd_payload_packet_share", "first_answer"):
        assert np.isnan(features.values[:, features.schema.names.index(name)]).all(), name


def test_one_packet_has_no_rate_and_no_gap(flows: FlowTable) -> None:
    single = flows.frame.filter(pl.col("fwd_packets") + pl.col("bwd_packets") == 1)
    assert single.height
    features = compute_features(FlowTable(single))
    for name in ("packet_rate", "fwd_byte_rate", "fwd_gap_variation", "step_gap_1"):
        assert np.isnan(features.values[:, features.schema.names.index(name)]).all(), name


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_values_are_finite_or_nan(bad: float) -> None:
    floats = [name for name, dtype in random_flows(0).frame.schema.items() if dtype == pl.Float32]
    frame = random_flows(5).frame.with_columns(
        pl.lit(bad, pl.Float32).alias(name) for name in floats
    )
    features = compute_features(FlowTable(frame))
    assert features.values.dtype == np.float32
    assert not np.isinf(features.values).any()
    assert np.isnan(features.values[:, features.schema.names.index("fwd_gap_std")]).all()


def test_nulls_are_nan() -> None:
    frame = random_flows(3).frame.with_columns(pl.lit(None, pl.Int64).alias("cert_not_before_s"))
    features = compute_features(FlowTable(frame))
    assert np.isnan(features.values[:, features.schema.names.index("cert_age_days")]).all()


def test_a_leaf_without_dates_is_one() -> None:
    """One odd field of a certificate loses no feature of the others."""
    null = pl.lit(None, pl.Int64)
    frame = random_flows(3).frame.with_columns(
        null.alias("cert_not_before_s"),
        null.alias("cert_not_after_s"),
        pl.lit(True).alias("cert_self_signed"),
        pl.lit(2048, pl.UInt16).alias("cert_key_bits"),
    )
    features = compute_features(FlowTable(frame))
    names = features.schema.names
    assert (features.values[:, names.index("cert_self_signed")] == 1).all()
    assert (features.values[:, names.index("cert_key_bits")] == 2048).all()
    assert np.isnan(features.values[:, names.index("cert_validity_days")]).all()


@pytest.mark.parametrize(
    ("dtls", "tls"), [(0xFEFF, 0x0302), (0xFEFD, 0x0303), (0xFEFC, 0x0304), (0x0100, 0x0302)]
)
def test_dtls_counts_as_the_tls_it_is_made_of(dtls: int, tls: int) -> None:
    columns = ("tls_version", "tls_client_version", "tls_record_version")
    frame = random_flows(20).frame
    one, other = (
        compute_features(
            FlowTable(frame.with_columns(pl.lit(v, pl.UInt16).alias(c) for c in columns))
        ).values
        for v in (dtls, tls)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("length", [1, STEPS - 1, STEPS, SEQUENCE_LENGTH, 50])
def test_steps_at_any_sequence_length(length: int) -> None:
    rng = np.random.default_rng(length)
    payload = rng.integers(1, 1400, (40, length)) * (rng.random((40, length)) < 0.5)
    frame = random_flows(40).frame.with_columns(
        pl.Series("seq_size", rng.choice([-1, 1], (40, length)) * (payload + 40)).cast(
            pl.Array(pl.Int16, length)
        ),
        pl.Series("seq_payload", payload).cast(pl.Array(pl.UInt16, length)),
        pl.Series("seq_gap_us", rng.integers(0, 2**32, (40, length))).cast(
            pl.Array(pl.UInt32, length)
        ),
    )
    features = compute_features(FlowTable(frame), ["sequence"])
    for row, values in zip(frame.to_dicts(), features.values, strict=True):
        wanted = naive.sequence(row, STEPS)
        np.testing.assert_allclose(
            values, [wanted[name] for name in features.schema.names], rtol=1e-6
        )


def test_empty_table() -> None:
    features = compute_features(random_flows(0))
    assert features.values.shape == (0, len(features.schema.features))
    assert features.keys.height == len(features) == 0


def test_rows_do_not_depend_on_each_other(flows: FlowTable) -> None:
    whole = compute_features(flows)
    some = [len(flows) - 1, 0, len(flows) // 2]
    part = compute_features(FlowTable(flows.frame[some]))
    np.testing.assert_array_equal(part.values, whole.values[some])
    assert part.keys.equals(whole.keys[some])


def test_forward_secrecy_by_the_names_of_cipher_suites() -> None:
    """Scapy's table of suites is the oracle."""
    suites = pytest.importorskip("scapy.layers.tls.crypto.suites")._tls_cipher_suites
    ephemeral = {
        number
        for number, name in suites.items()
        if name.startswith(("TLS_DHE_", "TLS_ECDHE_", "TLS_PSK_DHE_")) or number >> 8 == 0x13
    }
    assert len(ephemeral) > 100
    assert {number for number in EPHEMERAL if number in suites} == ephemeral


def test_forward_secrecy_of_the_cipher_chosen() -> None:
    ciphers = [0x1301, 0xC02F, 0x0033, 0x009E, 0x002F, 0x009C, 0xC004, 0x0000]
    frame = random_flows(len(ciphers)).frame.with_columns(
        pl.Series("tls_cipher", ciphers, pl.UInt16),
        pl.lit(90, pl.UInt16).alias("tls_server_hello_bytes"),
    )
    features = compute_features(FlowTable(frame))
    column = features.values[:, features.schema.names.index("tls_cipher_forward_secret")]
    assert column.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_case_of_a_name_does_not_matter() -> None:
    frame = random_flows(2).frame.with_columns(
        pl.Series("dns_query", ["xkcdqwrt.example.com", "XkCdQwRt.eXaMpLe.CoM"])
    )
    values = compute_features(FlowTable(frame)).values
    names = compute_features(FlowTable(frame)).schema.names
    own = [k for k, name in enumerate(names) if name.startswith("dns_") and "share" in name]
    own.append(names.index("dns_consonant_run"))
    np.testing.assert_array_equal(values[0, own], values[1, own])
    assert values[0, own[-1]] == 8
