"""What is said of hosts, beside plain Python."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.learning.features import naive_evidence
from tests.learning.features.naive_evidence import Unit
from veilwatch.learning.features.flow_class import FLOW_CLASSES
from veilwatch.learning.features.host_evidence import (
    EVIDENCE_SCHEMA,
    FLOW_EVIDENCE,
    HOST_EVIDENCE,
    Evidence,
    evidence_frame,
    heard_early,
    host_evidence,
)

HOSTS = 4
ODDS = st.floats(-30, 30, width=32)
UNITS = st.lists(st.tuples(st.integers(0, HOSTS - 1), ODDS, st.integers(0, 4)), max_size=40)
Units = Sequence[tuple[int, float, int]]


def arrays(units: Units) -> Evidence:
    host, odds, flow_class = zip(*units, strict=True) if units else ((), (), ())
    return Evidence(np.array(host, int), np.array(odds, float), np.array(flow_class, int))


def of_host(units: Units, host: int) -> list[Unit]:
    return [(odds, flow_class) for number, odds, flow_class in units if number == host]


def values(flows: Units, channels: Units = (), windows: Units = ()) -> np.ndarray:
    return host_evidence(HOSTS, arrays(flows), arrays(channels), arrays(windows)).values


@examples(200)
@given(UNITS, UNITS, UNITS)
def test_as_in_plain_python(flows: Units, channels: Units, windows: Units) -> None:
    found = values(flows, channels, windows)
    wanted = [
        naive_evidence.evidence(*(of_host(units, host) for units in (flows, channels, windows)))
        for host in range(HOSTS)
    ]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.array(wanted), atol=1e-9)


@given(UNITS, st.randoms(use_true_random=False))
def test_the_order_of_units_says_nothing(flows: Units, random: object) -> None:
    shuffled = list(flows)
    getattr(random, "shuffle")(shuffled)  # noqa: B009 - typed as an object by hypothesis
    np.testing.assert_allclose(values(shuffled), values(flows), atol=1e-9)


@given(UNITS, UNITS)
def test_hosts_do_not_touch_one_another(flows: Units, others: Units) -> None:
    moved = [(3, odds, flow_class) for _, odds, flow_class in others]
    own = [unit for unit in flows if unit[0] != 3]
    np.testing.assert_allclose(values([*own, *moved])[:3], values(own)[:3], atol=1e-9)


@given(UNITS.filter(len), st.data())
def test_what_is_more_suspicious_lowers_nothing(flows: Units, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(flows) - 1))
    host, odds, flow_class = flows[row]
    raised = [
        *flows[:row],
        (host, odds + data.draw(st.floats(0, 20)), flow_class),
        *flows[row + 1 :],
    ]
    before, after = (values(units, units, units) for units in (flows, raised))
    np.testing.assert_array_equal(np.isnan(before), np.isnan(after))
    assert (np.nan_to_num(after) >= np.nan_to_num(before) - 1e-9).all()


@given(UNITS, st.integers(0, 4), st.integers(1, 200))
def test_the_strongest_is_not_diluted_by_what_a_person_does(
    flows: Units, flow_class: int, quiet: int
) -> None:
    """A beacon among the flows of a person is as strong as alone; a mean is not."""
    beacon = [(0, 31.0, flow_class)] * 3
    alone = values(beacon)[0]
    used = values([*beacon, *flows, *[(0, -31.0, flow_class)] * quiet])[0]
    top = [f"flow_{FLOW_CLASSES[flow_class]}_{word}" for word in ("top", "top3")]
    columns = [EVIDENCE_SCHEMA.names.index(name) for name in top]
    np.testing.assert_array_equal(used[columns], alone[columns])
    mean = EVIDENCE_SCHEMA.names.index(f"flow_{FLOW_CLASSES[flow_class]}_mean")
    assert used[mean] < alone[mean]


@given(UNITS, UNITS, UNITS)
def test_flows_speak_for_hosts_that_were_judged_by_flows_alone(
    flows: Units, channels: Units, windows: Units
) -> None:
    whole = values(flows, channels, windows)
    before = whole.copy()
    early = heard_early(whole)
    np.testing.assert_array_equal(whole, before)  # it changes nothing that it is given
    silent = np.isnan(whole[:, -1])
    np.testing.assert_array_equal(early[~silent], whole[~silent])
    for host in np.flatnonzero(silent):
        own = of_host(flows, int(host))
        wanted = [
            *naive_evidence.of_flows(own),
            *naive_evidence.of_flows(own),
            *naive_evidence.of_shares(own, (0.25, 0.5, 1)),
        ]
        np.testing.assert_allclose(early[host], wanted, atol=1e-9)


def test_features_stand_where_their_names_say() -> None:
    names = EVIDENCE_SCHEMA.names
    assert len(set(names)) == len(names) == len(HOST_EVIDENCE.features)
    said = values(
        [(0, 1.0, 0), (0, 3.0, 0), (0, -2.0, 2)], [(0, 5.0, 1), (0, 4.0, 3)], [(0, 7.0, 0)] * 2
    )[0]
    told = {name: said[k] for k, name in enumerate(names)}
    assert told["flow_encrypted_top"] == 3 and told["flow_encrypted_top3"] == 2
    assert told["flow_file_sharing_mean"] == -2 and np.isnan(told["flow_names_top"])
    assert told["channel_names_top"] == 5 and told["channel_other_top"] == 4
    assert told["flow_upper_25"] == 3 and told["flow_upper_50"] == 2
    assert told["channel_upper_10"] == 5 and told["channel_upper_100"] == 4.5
    assert told["window_upper_0"] == 7
    assert [name for name in names[:FLOW_EVIDENCE] if not name.startswith("flow_")] == []
    second = names[FLOW_EVIDENCE : 2 * FLOW_EVIDENCE]
    assert [name for name in second if not name.startswith("channel_")] == []
    assert {item.spec.unit for item in HOST_EVIDENCE.features} == {""}


def test_no_hosts_and_no_units() -> None:
    none = arrays([])
    assert host_evidence(0, none, none, none).values.shape == (0, len(EVIDENCE_SCHEMA.names))
    quiet = host_evidence(2, none, none, none)
    assert quiet.keys["host"].to_list() == [0, 1] and quiet.schema.unit == "host"
    assert np.isnan(quiet.values).all()
    assert evidence_frame(quiet.values.astype(np.float64)).schema == EVIDENCE_SCHEMA
