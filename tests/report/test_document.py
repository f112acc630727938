"""The document says what the scores, alerts and counters say, in bounded size."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.report import factory
from veilwatch.report import charts, svg, units
from veilwatch.report.catalogue import catalogue
from veilwatch.report.charts import time_grid
from veilwatch.report.detection import build
from veilwatch.report.detection.bins import score_histogram, timeline
from veilwatch.report.detection.document import ReportDocument
from veilwatch.report.detection.page import render_html
from veilwatch.report.detection.verdict import details
from veilwatch.schema.packets import Status
from veilwatch.schema.text import MAX_SHOWN_NAME, visible
from veilwatch.traffic.handshake.services import SERVICES


def document(scene: factory.Scene, **changes: Any) -> ReportDocument:
    parts: dict[str, Any] = {
        "captures": scene.captures,
        "balance": scene.balance,
        "scores": scene.scores,
        "alerts": scene.alerts,
        "manifest": scene.manifest,
        "emulated": scene.emulated,
    }
    return build.build_document(**parts | changes)


def test_decoded_and_refused_are_all_packets_read() -> None:
    scene = factory.scene(infected_hosts=1)
    reading = document(scene).reading
    assert reading.packets == scene.captures.packets == reading.decoded + reading.refused
    assert [(line.status, line.packets) for line in reading.balance] == [
        ("NOT_IP", 312),
        ("LATER_FRAGMENT", 148),
        ("TUNNEL_PAYLOAD", 61),
    ]
    lower = {name.lower(): count for name, count in scene.balance.items()}
    assert document(scene, balance=lower).reading == reading


def test_the_timeline_of_a_card_spans_its_host_and_not_the_run() -> None:
    scene = factory.scene(minutes=600)
    flows = scene.scores.flows
    early = flows.filter(pl.col("src_ip") == scene.alerts[0].host)["flow_id"].to_list()
    start = factory.START_NS
    # One host was there for two minutes of ten hours.
    moved = flows.with_columns(
        first_ns=pl.when(pl.col("flow_id").is_in(early))
        .then(start + pl.col("flow_id") % 120 * factory.SECOND)
        .otherwise("first_ns")
    )
    scene.scores = dataclasses.replace(scene.scores, flows=moved)
    card = document(scene).hosts[0]
    assert card.flows == sum(card.activity.flows) == sum(card.timeline.flows)
    assert card.alerted_flows == sum(card.activity.alerts)
    assert len(card.activity.flows) * card.activity.step_ns <= 180 * factory.SECOND
    assert card.activity.flows[0] and card.activity.flows[-1]
    assert len(card.timeline.flows) * card.timeline.step_ns > 9 * 3600 * factory.SECOND


@pytest.mark.parametrize("width", [240.0, 900.0])
@pytest.mark.parametrize(("step", "count"), [(15, 103), (30, 85), (1, 40), (3600, 31), (7200, 84)])
def test_times_below_an_axis_are_round_and_where_they_say(
    step: int, count: int, width: float
) -> None:
    second = factory.SECOND
    start = (factory.START_NS // (step * second) + 7) * step * second
    drawn = "".join(charts.time_axis(start, step * second, count, 60.0, 60.0 + width, 0.0))
    names = re.findall(r">([\d: -]+)</text>", drawn)
    ticks = [float(x) for x in re.findall(r'<line x1="([\d.]+)"', drawn)]
    assert 2 <= len(names) == len(ticks) <= charts.MOST_TICKS + 1
    for x, name in zip(ticks, names, strict=True):
        at = start + (x - 60.0) / width * step * count * second
        exact = round(at / (step * second)) * step * second
        assert abs(at - exact) < 0.02 * step * count * second
        assert name == units.clock(exact, step * second * count)
    gaps = np.diff(ticks)
    assert not len(gaps) or gaps.min() >= svg.text_width(names[0]) + 8
    assert len(gaps) < 2 or gaps.max() - gaps.min() < 0.1


def test_numbers_dates_and_services_have_one_form() -> None:
    assert units.period(factory.START_NS, factory.START_NS + 95 * factory.SECOND) == (
        "2026-06-01 08:40:00 – 08:41:35"
    )
    day = 86_400 * factory.SECOND
    assert units.period(factory.START_NS, factory.START_NS + day) == (
        "2026-06-01 08:40:00 – 2026-06-02 08:40:00"
    )
    assert units.period(factory.START_NS, None) == "2026-06-01 08:40:00"
    for written in ("2026-05-30T11:02:03Z", "2026-05-30T13:02:03+02:00", "2026-05-30 11:02:03Z"):
        assert units.timestamp(written) == "2026-05-30 11:02:03 UTC"
    for written in ("by day", "2026-99-30T11:02:03Z", "2026", "1.2.3"):
        assert units.timestamp(written) == written
    facts = dict(document(factory.scene(alerts=False)).model.facts)
    assert facts["created"] == "2026-05-30 11:02:03 UTC"
    for name in SERVICES:
        assert not name or units.service(name) != name, name
    for name in ("", "病院.example", "x1", "<b>"):
        assert units.service(name) == name
    assert units.clock(factory.START_NS, 5 * day) == "06-01 08:40"


def test_every_status_has_a_meaning_in_words() -> None:
    from veilwatch.report.catalogue import catalogue

    for status in Status:
        assert status is Status.OK or catalogue().has(f"status.{status.name}")


def test_traffic_sums_to_the_flow_table() -> None:
    scene = factory.scene()
    flows = scene.scores.flows
    result = document(scene)
    assert result.traffic.flows == flows.height == sum(s.flows for s in result.traffic.services)
    assert result.traffic.bytes == int(flows["fwd_bytes"].sum()) + int(flows["bwd_bytes"].sum())
    encrypted = flows.filter(flows["service"].is_in(["tls", "quic", "ssh"]))
    assert result.traffic.encrypted_flows == encrypted.height
    assert sum(result.timeline.flows) == flows.height
    assert sum(result.timeline.bytes) == result.traffic.bytes
    assert sum(result.timeline.alerts) == flows["alert"].sum() == result.alerted_flows
    assert sum(result.scores.above) == result.alerted_flows
    assert sum(result.scores.below) == flows.height - result.alerted_flows


def test_a_host_card_holds_only_its_own_flows() -> None:
    scene = factory.scene()
    for card in document(scene).hosts:
        own = scene.scores.flows.filter(scene.scores.flows["src_ip"] == card.alert.host)
        assert card.flows == own.height == sum(card.timeline.flows)
        assert card.alerted_flows == own["alert"].sum() == sum(card.timeline.alerts)
        assert sum(family.flows for family in card.families) == card.alerted_flows
        assert {server.address for server in card.servers} <= set(own["dst_ip"])


def test_tunnels() -> None:
    scene = factory.scene()
    tunnels = document(scene).tunnels
    hosts = scene.scores.hosts.height
    assert tunnels.flows == scene.scores.flows.height and tunnels.teids == 2 * hosts
    assert {(e.first, e.second) for e in tunnels.endpoints} == {
        ("192.0.2.10", "192.0.2.100"),
        ("192.0.2.100", "192.0.2.11"),
    }
    assert sum(e.flows for e in tunnels.endpoints) == tunnels.flows
    assert dict(tunnels.messages)["gtp_end_marker"] == 6 and len(tunnels.messages) == 5


def test_lists_are_bounded_and_say_what_is_left_out() -> None:
    scene = factory.scene(infected_hosts=40, benign_hosts=2)
    result = document(scene)
    assert len(result.hosts) == build.SHOWN_HOSTS and result.more_hosts == 40 - build.SHOWN_HOSTS
    assert len(result.alerts) == build.SHOWN_ALERTS
    assert result.more_alerts == result.alerted_flows - build.SHOWN_ALERTS > 0


def test_names_are_visible_and_bounded_everywhere() -> None:
    scene = factory.scene(hostile=True)
    text = document(scene).model_dump_json()
    assert not {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    assert "x" * (MAX_SHOWN_NAME + 1) not in text and "病院.example" in text


def test_chance_is_the_target_rate_times_the_flows() -> None:
    scene = factory.scene(infected_hosts=1)
    flows = scene.scores.flows.height
    assert document(scene).expected_false_alerts == pytest.approx(0.001 * flows)
    assert document(scene, manifest={}).expected_false_alerts is None


def test_limits_follow_the_run() -> None:
    scene = factory.scene(infected_hosts=1)
    assert {"emulated", "cut", "fragments", "silence"} <= set(document(scene).limits)
    real = document(factory.empty_scene())
    assert not {"emulated", "cut", "fragments"} & set(real.limits) and "silence" in real.limits
    assert "held_out" in document(scene, manifest={"held_out": None}).limits


def test_flows_without_subscribers_and_without_packets() -> None:
    scene = factory.scene(infected_hosts=1)
    flows = scene.scores.flows.with_columns(subscriber=pl.lit(""))
    alerts = [dataclasses.replace(alert, subscriber="") for alert in scene.alerts]
    result = document(scene, scores=dataclasses.replace(scene.scores, flows=flows), alerts=alerts)
    assert result.subscribers == () and result.hosts[0].flows == 60
    assert document(factory.empty_scene()).traffic.flows == 0


@pytest.mark.parametrize(
    "span", [0, 1, 999, 10**6, 7 * 10**9, 3600 * 10**9, 86400 * 10**9, 40 * 365 * 86400 * 10**9]
)
def test_a_time_grid_holds_its_span(span: int) -> None:
    first = factory.START_NS + 123_456_789
    start, step, count = time_grid(first, first + span, 60)
    assert start <= first and first + span < start + step * count and count <= 62


def test_extreme_scores_stay_in_the_histogram() -> None:
    flows = factory.scene(infected_hosts=1).scores.flows.head(4)
    import polars as pl

    flows = flows.with_columns(
        score=pl.Series([0.0, 1.0, 0.5, 1e-9], dtype=pl.Float32),
        alert=pl.Series([False, True, True, False]),
    )
    histogram = score_histogram(flows)
    assert histogram.below[0] == 2 and histogram.above[-1] == 1
    assert histogram.above[len(histogram.above) // 2] == 1
    assert timeline(flows.clear(), (0, 1, 1)).flows == (0,)


@pytest.mark.parametrize("name", factory.HOSTILE_NAMES)
def test_visible_names_fit_on_one_line_without_acting_characters(name: str) -> None:
    shown = visible(name)
    assert len(shown) <= MAX_SHOWN_NAME and len(shown.splitlines()) == 1
    assert not any(unicodedata.category(c)[0] == "C" for c in shown)


def test_alerts_beyond_the_bound_are_counted_and_said() -> None:
    scene = factory.scene(infected_hosts=30, benign_hosts=2)
    hosts = [alert for alert in scene.alerts if alert.kind == "host"]
    flows = [alert for alert in scene.alerts if alert.kind == "flow"]
    scores = dataclasses.replace(scene.scores, hosts_without_windows=1200)
    cut = dataclasses.replace(scene, scores=scores, alerts=hosts[:28] + flows[:110])
    found = document(cut)
    assert (found.alerted_hosts, found.alerted_flows) == (len(hosts), len(flows))
    assert (found.written_hosts, found.written_flows) == (28, 110)
    assert found.left_out == len(hosts) - 28 + len(flows) - 110 > 0
    assert found.more_hosts == 28 - build.SHOWN_HOSTS
    assert found.more_alerts == 110 - build.SHOWN_ALERTS
    said = " ".join(details(found, catalogue("en")))
    assert f"holds the strongest 138, the other {found.left_out:,} are only counted" in said
    assert "1,200 hosts with few flows were judged by their flows alone" in said
    page = render_html(found)
    assert f"the other {found.left_out:,} are only counted" in page
    whole = document(scene)
    assert whole.left_out == 0 and "only counted" not in render_html(whole)
