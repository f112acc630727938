"""What the registry promises of names, documentation and the schema that models are bound to."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from veilwatch.errors import VeilwatchError
from veilwatch.learning.features import DEFAULT_SETS, FEATURE_SETS, feature_schema
from veilwatch.schema.features import FeatureSchema
from veilwatch.traffic.handshake import SERVICES

UNITS = {"", "cell", "bytes", "packets", "s", "d", "h", "bit", "1/s", "bytes/s"}

SHORTCUTS = {
    *("src_port", "dst_port", "ip_version", "time_of_day"),
    *(
        f"{side}_{name}"
        for side in ("fwd", "bwd")
        for name in (
            *("ttl", "mss", "wscale"),
            *("window_first", "window_mean", "window_min", "window_max"),
        )
    ),
    # A bare SYN is as long as its options, which are MSS, window scale and timestamps.
    *(f"packet_size_{k}" for k in range(20)),
    *(f"packet_gap_{k}" for k in range(1, 20)),
}


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_every_feature_is_documented(name: str) -> None:
    item = FEATURE_SETS[name]
    assert item.name == name
    assert item.doc and item.version >= 1
    for feature in item.features:
        spec = feature.spec
        assert re.fullmatch("[a-z][a-z0-9_]*", spec.name), spec.name
        assert spec.unit in UNITS, spec
        assert spec.doc[0].isalnum() and not spec.doc.endswith("."), spec
        assert feature.expression.meta.output_name() == spec.name


def test_names_and_documentation_are_unique_over_all_sets() -> None:
    for unit in {item.unit for item in FEATURE_SETS.values()}:
        sets = [name for name, item in FEATURE_SETS.items() if item.unit == unit]
        schema = feature_schema(sets, shortcuts=True)
        assert max(Counter(schema.names).values()) == 1
        texts = Counter(spec.doc for spec in schema.features)
        assert [text for text, times in texts.items() if times > 1] == []


def test_shortcuts_are_off_by_default() -> None:
    default, everything = feature_schema(), feature_schema(shortcuts=True)
    assert not any(spec.shortcut for spec in default.features)
    assert set(everything.names) - set(default.names) == SHORTCUTS
    for word in ("ip", "port", "teid", "qfi", "vlan", "first_ns", "outer", "domain"):
        assert not [n for n in default.names if word in n.split("_")], word


def test_host_windows_tell_neither_place_nor_time_by_default() -> None:
    item = FEATURE_SETS["host_window"]
    shortcuts = {f.spec.name for f in item.features if f.spec.shortcut}
    assert shortcuts == {"time_of_day", "well_known_port_share", "ip6_share"}


def test_no_feature_reads_what_only_identifies() -> None:
    """Addresses, identifiers and fingerprints name a flow or a host; they say nothing of others."""
    identifiers = {
        *("flow_id", "parent_id", "source", "first_number", "src_ip", "dst_ip"),
        *("outer_src_ip", "outer_dst_ip", "fwd_teid", "bwd_teid", "fwd_vlan", "bwd_vlan"),
        *("quic_dcid", "quic_scid", "ja3", "ja3s", "ja4"),
    }
    for item in FEATURE_SETS.values():
        for feature in item.features:
            assert not identifiers & set(feature.expression.meta.root_names()), feature.spec.name


def test_a_service_has_a_column_if_and_only_if_it_can_occur() -> None:
    columns = {n.removeprefix("service_") for n in feature_schema().names if "service_" in n}
    assert columns == {name or "unknown" for name in SERVICES}


def test_the_hash_follows_set_version_and_names() -> None:
    base = feature_schema()
    assert base.hash == feature_schema(list(DEFAULT_SETS)).hash
    first, second, *rest = base.features
    others = [
        feature_schema(["statistics"]),
        feature_schema(["sequence", "statistics"]),
        feature_schema(shortcuts=True),
        replace(base, version=base.version + 1),
        replace(base, features=(replace(first, name="renamed"), second, *rest)),
        replace(base, features=(second, first, *rest)),
        replace(base, features=base.features[1:]),
    ]
    assert len({schema.hash for schema in [base, *others]}) == len(others) + 1
    reworded = replace(base, features=(replace(first, doc="Other words"), second, *rest))
    assert reworded.hash == base.hash


def test_the_version_tells_which_set_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = feature_schema()
    for name in DEFAULT_SETS:
        with monkeypatch.context() as patch:
            item = FEATURE_SETS[name]
            patch.setitem(FEATURE_SETS, name, replace(item, version=item.version + 1))
            assert feature_schema().hash != before.hash
    assert feature_schema().hash == before.hash


@pytest.mark.parametrize("names", [["statistic"], ["statistics", "statistics"]])
def test_unknown_or_repeated_sets_are_refused(names: list[str]) -> None:
    with pytest.raises(VeilwatchError, match=r"unknown feature set|named twice"):
        feature_schema(names)


def test_shape_of_the_schema() -> None:
    schema = feature_schema()
    assert isinstance(schema, FeatureSchema)
    assert schema.set_name == "statistics+sequence"
    assert len(schema.names) == len(schema.features)
