"""A field report says what the store says, in bounded size, on an inert page."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from tests.examples import examples
from tests.known import known
from tests.report import field_factory as factory
from tests.report.factory import HOSTILE_NAMES
from tests.report.test_html import MAX_PAGE, check_inert
from veilwatch.errors import VeilwatchError
from veilwatch.report.catalogue import catalogue
from veilwatch.report.field import counts as field_counts
from veilwatch.report.field import events as field_events
from veilwatch.report.field.build import MAX_DAYS, build_field, field_grid
from veilwatch.report.field.document import FORMAT, Balance, FieldDocument
from veilwatch.report.field.figures import poisson
from veilwatch.report.field.page import render_field
from veilwatch.schema.counters import CounterStep
from veilwatch.schema.verdicts import Verdict, VerdictKind
from veilwatch.store import EventFilter, Store

MINUTE, SECOND, DAY, START = factory.MINUTE, factory.SECOND, factory.DAY, factory.START_NS


@pytest.fixture(scope="module")
def week() -> factory.Past:
    return factory.past(every=3)


def text_of(document: FieldDocument) -> str:
    html = render_field(document)
    page = check_inert(html)
    ids = {value for _, key, value in page.attributes if key == "id"}
    links = {value[1:] for _, key, value in page.attributes if key == "href"}
    assert links <= ids and len(html.encode()) < MAX_PAGE
    text = " ".join(page.text)
    assert not re.search(r"\b(nan|inf|None)\b", text)
    for tag, key, value in page.attributes:
        assert key not in ("x", "y", "width", "height", "points") or "nan" not in value, tag
    return text


def total(past: factory.Past, name: str) -> int:
    return round(sum(row[4] for row in past.counters if row[3] == name))


def test_what_the_mirror_carried(week: factory.Past) -> None:
    carried = week.document().carried
    minutes = len({row[0] for row in week.counters})
    packets = [row[4] for row in week.counters if row[3] == "packets"]
    assert carried.packets == sum(packets) and carried.bytes == total(week, "bytes")
    assert carried.packets_per_s == pytest.approx(sum(packets) / minutes / 60)
    assert carried.peak_packets_per_s == max(packets) / 60
    assert carried.flows_gtp == total(week, "flows_gtp")
    assert carried.bytes_encrypted == total(week, "bytes_encrypted")
    subscribers = [row[4] for row in week.counters if row[3] == "subscribers_seen"]
    assert carried.subscribers_mean == pytest.approx(sum(subscribers) / len(subscribers))
    assert carried.subscribers_peak == max(subscribers)
    names = {"tls", "quic", "dns", "http", "unknown", "other"}
    assert {s.name: s.count for s in carried.services} == {
        name: total(week, f"service/{name}") for name in names
    }
    grid = week.document().grid
    for step in (0, 17, grid.steps - 1):
        start = grid.start_ns + step * grid.step_ns
        inside = [
            row[4]
            for row in week.counters
            if row[3] == "packets" and start <= row[0] < start + grid.step_ns
        ]
        assert carried.packet_rate[step] == pytest.approx(sum(inside) / len(inside) / 60)


def test_the_store_gives_the_same_document(week: factory.Past, tmp_path: Path) -> None:
    # A day of it: the store is slower to fill than the page is to make.
    until = START + DAY // 2
    day = replace(
        week,
        until_ns=until,
        counters=[row for row in week.counters if row[0] < until],
        events=[event for event in week.events if event.alert.last_ns < until],
    )
    known = {event.event_id for event in day.events}
    day.verdicts = [verdict for verdict in week.verdicts if verdict.event_id in known]
    url = str(tmp_path / "x.db")
    day.fill(url)
    grid = field_grid(START, until)
    with Store(url) as store:
        stored = build_field(
            since_ns=START,
            until_ns=until,
            counts=store.counter_steps(since_ns=START, until_ns=until, step_ns=grid.step_ns),
            minutes=store.counted_minutes(since_ns=START, until_ns=until),
            events=(
                (item.event, item.verdict)
                for item in store.events(EventFilter(since_ns=START, until_ns=until))
            ),
            incidents=(item.incident for item in store.incidents(since_ns=START)),
            made_at=factory.MADE_AT,
        )
    expected = day.document()
    # Sums of decimals differ in their last digit by the order in which they are added.
    assert rounded(stored.to_json()) == rounded(expected.to_json())


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def test_alerts_by_severity_family_host_and_day(week: factory.Past) -> None:
    found = week.document().found
    alerts = [event.alert for event in week.events if event.kind in ("flow", "host")]
    assert found.alerts == len(alerts) == 160 and found.summaries == 1
    for line in found.severities:
        ours = Counter(a.kind for a in alerts if a.severity == line.severity)
        assert (line.flow_alerts, line.host_alerts) == (ours["flow"], ours["host"])
        assert line.incidents == sum(i.severity == line.severity for i in week.incidents)
    families = Counter(alert.family for alert in alerts)
    assert {f.name: f.count for f in found.families} == dict(families)
    hosts = Counter(alert.host for alert in alerts)
    assert {h.name: h.alerts for h in found.hosts if h.alerts}.items() <= hosts.items()
    assert len(found.hosts) + found.more_hosts == found.hosts_told
    assert found.hosts_told == len(set(hosts) | {i.host for i in week.incidents})
    assert found.hosts_alerted == len(hosts)
    assert f"160 alerts on {len(hosts)} hosts" in text_of(week.document())
    assert [h.severity for h in found.hosts] == sorted(h.severity for h in found.hosts)
    days = Counter((alert.last_ns // DAY, alert.severity) for alert in alerts)
    for day in found.days:
        key = day.start_ns // DAY
        assert [day.high, day.medium, day.low] == [days[key, grade] for grade in (1, 2, 3)]
        assert day.incidents == sum(i.opened_ns // DAY == key for i in week.incidents)
    assert sum(found.high) + sum(found.medium) + sum(found.low) == found.alerts


def test_verdicts_give_precision_and_false_alerts_a_day(week: factory.Past) -> None:
    document = week.document()
    judged, line = document.judged, document.judged.lines[-1]
    said: Counter[str] = Counter(verdict.kind for verdict in week.verdicts)
    assert line.true_positive == said["true_positive"] and line.unknown == said["unknown"]
    assert line.unjudged == 160 - len(week.verdicts)
    false = said["false_positive"] + said["benign"]
    decided = false + said["true_positive"]
    assert line.precision.value == said["true_positive"] / decided
    days = len({row[0] for row in week.counters}) / 1440
    assert judged.false_per_day.value == pytest.approx(
        (false + false / decided * (160 - decided)) / days
    )
    for part in judged.lines:
        counts = (part.true_positive, part.false_positive, part.benign, part.unknown, part.unjudged)
        assert sum(counts) == part.alerts


def test_only_the_latest_verdict_counts_and_none_is_said_plainly(week: factory.Past) -> None:
    event = week.events[0]
    past = replace(week, verdicts=[Verdict(event.event_id, VerdictKind.BENIGN, "ana", 5)])
    past.verdicts.append(Verdict(event.event_id, VerdictKind.TRUE_POSITIVE, "bo", 6))
    line = past.document().judged.lines[-1]
    assert (line.true_positive, line.benign) == (1, 0)
    bare = replace(week, verdicts=[]).document()
    assert bare.judged.false_per_day.value is None and "no_verdicts" in bare.limits
    text = text_of(bare)
    assert catalogue()("field.verdict.false_unknown", count=160) in text
    assert catalogue()("field.verdicts.wants", count=30) in text


def test_every_alert_judged_leaves_nothing_to_estimate(week: factory.Past) -> None:
    past = replace(
        week,
        verdicts=[
            Verdict(event.event_id, VerdictKind.FALSE_POSITIVE, "ana", n)
            for n, event in enumerate(week.events)
        ],
    )
    document = past.document()
    estimate = document.judged.false_per_day
    days = document.judged.days
    assert estimate.value == pytest.approx(160 / days)
    assert estimate.low is not None and estimate.high is not None
    low, high = poisson(160)
    assert (estimate.low, estimate.high) == pytest.approx((low / days, high / days))
    assert "every one of 160 alerts was judged" in text_of(document)


def test_delay_from_events_and_from_counters(week: factory.Past) -> None:
    delays = week.document().delays
    alerts = [event for event in week.events if event.kind in ("flow", "host")]
    last = sorted((event.made_ns - event.alert.last_ns) / SECOND for event in alerts)
    first = sorted((event.made_ns - event.alert.first_ns) / SECOND for event in alerts)
    for found, expected in zip(delays.events, (last, first), strict=True):
        assert found.max_s == expected[-1] and found.left_out == 0
        assert found.median_s == expected[math.ceil(0.5 * len(expected)) - 1]
        assert found.p90_s == expected[math.ceil(0.9 * len(expected)) - 1]
    assert delays.counted == total(week, "delay_count")
    assert delays.counted_max_s == max(r[4] for r in week.counters if r[3] == "delay_max_s")


def test_events_from_before_their_packets_are_left_out_and_said() -> None:
    past = factory.Past(START, START + DAY)
    past.events = [factory.alert_at(n, START + DAY // 2, delay_s=-3.0) for n in range(2)]
    document = past.document()
    assert document.delays.events[0].left_out == 2
    assert document.delays.events[0].median_s is None and "clock" in document.limits
    text_of(document)


def test_delay_sums_keep_their_fractions() -> None:
    rows = [(START, "s", "a", "delay_sum_s", 0.2), (START, "s", "a", "delay_count", 2.0)]
    delays = factory.Past(START, START + DAY, counters=rows).document().delays
    assert delays.counted_mean_s == pytest.approx(0.1)


def test_uptime_gaps_and_mishaps(week: factory.Past) -> None:
    rows: list[factory.Row] = []
    for minute in [*range(10, 100), *range(160, 1440)]:
        at = START + minute * MINUTE
        rows.append((at, "s", "a" if minute < 100 else "b", "up_s", 60.0))
    rows.append((START + 20 * MINUTE, "s", "a", "restarts/judge", 2.0))
    rows.append((START + 30 * MINUTE, "s", "a", "interruptions", 1.0))
    past = factory.Past(START, START + DAY, counters=rows)
    uptime = past.document().uptime
    (sensor,) = uptime.sensors
    assert (sensor.starts, sensor.counted_minutes, sensor.missing_minutes) == (2, 1370, 70)
    assert sensor.up_share == pytest.approx(1370 / 1440)
    assert [(gap.place, (gap.end_ns - gap.start_ns) // MINUTE) for gap in uptime.gaps] == [
        ("before", 10),
        ("within", 60),
    ]
    assert [(m.kind, m.name, m.count) for m in uptime.mishaps] == [
        ("restart", "judge", 2),
        ("interruption", "", 1),
    ]
    assert uptime.restarts == 2 and uptime.interruptions == 1
    text = text_of(past.document())
    assert "judge was started again, 2 times" in text and "before its first counter" in text


def test_two_missing_minutes_are_no_gap() -> None:
    rows = [
        (START + k * MINUTE, "s", "a", "up_s", 60.0) for k in range(1440) if k not in (700, 701)
    ]
    assert factory.Past(START, START + DAY, counters=rows).document().uptime.gaps == ()


def test_load_and_headroom(week: factory.Past) -> None:
    document = week.document()
    judge = next(p for p in document.load.processes if p.name == "judge")
    cpu = [row[4] for row in week.counters if row[3] == "cpu_s/judge"]
    assert judge.cpu_mean == pytest.approx(sum(cpu) / len(cpu) / 60)
    assert judge.cpu_peak == max(cpu) / 60 and judge.trend == "flat"
    assert catalogue()("field.load.memory_flat") in text_of(document)
    leak = factory.past(every=15, leak=True).document()
    assert next(p for p in leak.load.processes if p.name == "judge").trend == "growing"
    assert catalogue()("field.load.memory_growing", names="judge") in text_of(leak)
    cores = replace(week, counters=[*week.counters, (START, "ward-3", "a", "gauge/cores", 2.0)])
    assert "of 2 cores" in text_of(cores.document())


def test_drift_is_worded_by_the_worst_of_it(week: factory.Past) -> None:
    for worst, key in ((0.05, "usual"), (0.2, "moved"), (0.7, "other")):
        rows = [
            (START, "s", "a", "gauge/score_psi", worst),
            (START + DAY // 2, "s", "a", "gauge/score_psi", 0.01),
        ]
        rows.append((START, "s", "a", "score/0", 2000.0))
        past = factory.Past(START, START + DAY, counters=rows)
        assert catalogue()(f"field.drift.{key}") in text_of(past.document())


@pytest.mark.parametrize(("psi", "flows"), [(0.0, 5000.0), (0.3, 1999.0)])
def test_drift_is_not_told_where_nothing_can_be_compared(psi: float, flows: float) -> None:
    rows: list[factory.Row] = [
        (START, "s", "a", "gauge/score_psi", psi),
        (START, "s", "a", "score/8", flows),
    ]
    document = factory.Past(START, START + DAY, counters=rows).document()
    assert document.drift.most is None
    text = text_of(document)
    assert not any(catalogue()(f"field.drift.{key}") in text for key in ("usual", "moved", "other"))
    assert f"so far {flows:,.0f} flows" in text
    assert f"100 % of {flows:,.0f} flows" in text and catalogue()("field.drift.high") in text
    low = factory.Past(START, START + DAY, counters=[(START, "s", "a", "score/1", flows)])
    assert catalogue()("field.drift.high") not in text_of(low.document())


def short_past(seconds: int, alerts: int, verdicts: int) -> factory.Past:
    """A sensor that ran for so long and told of so many alerts, of which so many were judged."""
    past = factory.Past(START, START + max(seconds, 60) * SECOND)
    for minute in range(max(seconds // 60, 1)):
        at = START + minute * MINUTE
        past.counters += [
            (at, "s", "a", "up_s", 60.0),
            (at, "s", "a", "gauge/rss/judge", 3e8 + minute * 1e7),
        ]
    past.events = [factory.alert_at(n, START + 30 * SECOND) for n in range(alerts)]
    past.verdicts = [
        Verdict(event.event_id, VerdictKind.FALSE_POSITIVE, "ana", n)
        for n, event in enumerate(past.events[:verdicts])
    ]
    return past


@pytest.mark.parametrize(
    ("seconds", "alerts", "verdicts", "wanted"),
    [
        (57, 62, 1, ["so far 1 min", "29 more alerts with a result"]),
        (57, 1, 1, ["so far 1 min"]),
        (3 * 86_400, 62, 1, ["29 more alerts with a result"]),
        (3 * 86_400, 5, 1, ["4 more alerts with a result"]),
        (12 * 3600, 62, 62, ["so far 12 h"]),
    ],
)
def test_too_little_is_no_statement_and_says_how_much_more(
    seconds: int, alerts: int, verdicts: int, wanted: list[str]
) -> None:
    document = short_past(seconds, alerts, verdicts).document()
    estimate = document.judged.false_per_day
    assert estimate.value is estimate.low is estimate.high is None
    text = text_of(document)
    assert "false alerts a day (" not in text
    assert catalogue()("field.key.false_few") in text
    for part in wanted:
        assert part in text, part
    assert ("of running (so far" in text) is (seconds < 86_400)
    assert ("with a result. Judge" in text) is (verdicts < min(alerts, 30))


def test_enough_is_a_statement_with_its_interval() -> None:
    for alerts, verdicts in ((62, 30), (5, 5)):
        document = short_past(86_400, alerts, verdicts).document()
        estimate = document.judged.false_per_day
        assert estimate.value == pytest.approx(alerts)
        assert known(estimate.low) < known(estimate.value) < known(estimate.high)
        assert not document.judged.more_verdicts and not document.judged.more_s


def test_precision_delay_and_memory_are_not_told_of_too_few() -> None:
    few = short_past(3600, 9, 9).document()
    assert all(line.precision.value is None for line in few.judged.lines)
    assert few.delays.events[0].median_s is not None and few.delays.events[0].p90_s is None
    (judge,) = few.load.processes
    assert judge.trend == "short" and judge.growth_per_day is None
    text = text_of(few)
    assert catalogue()("field.load.memory_short", least="1 d") in text
    assert catalogue()("field.verdicts.precision_from", least=30) in text
    assert catalogue()("field.key.delay_few", count=9) in text
    more = short_past(2 * 86_400, 31, 31).document()
    assert more.judged.lines[0].precision.value == 0.0
    assert more.delays.events[0].p90_s is not None
    assert more.load.processes[0].trend == "growing"


@pytest.mark.parametrize("emulated", [True, False])
def test_emulated_traffic_is_said_first(emulated: bool) -> None:
    past = factory.past(days=1, alerts=12, every=60, emulated=emulated)
    past.events.append(factory.event_on_request(START + DAY // 2))  # a test is no traffic
    document = past.document()
    html, banner = render_field(document), catalogue()("emulated.banner")
    assert document.emulated is emulated and (banner in html) is emulated
    assert document.found.tests == 1 and ("emulated" in document.limits) is emulated
    if emulated:
        assert html.index(banner) < html.index("<h1>")


def test_one_emulated_incident_is_enough() -> None:
    past = factory.past(days=1, alerts=12, every=60)
    past.incidents[0] = replace(past.incidents[0], emulated=True)
    assert past.document().emulated


def test_hostile_names_are_shown_as_text() -> None:
    past = factory.past(days=2, every=30, hostile=True)
    html = render_field(past.document(title=HOSTILE_NAMES[0], command=HOSTILE_NAMES[4]))
    assert "<script" not in html and "\u202e" not in html and "\x1b" not in html
    text = text_of(past.document())
    for name in ("<script>alert(1)</script>", "{{ 7*7 }}{% raw %}", r"two\nlines\r\nand\ttabs"):
        assert name in text


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_counters_are_shown_as_text(name: str) -> None:
    prefixes = ("refused/", "service/", "restarts/", "cpu_s/", "gauge/rss/", "gauge/", "fate/", "")
    rows: list[factory.Row] = [
        (START + k * MINUTE, name, name, prefix + name, 5.0)
        for prefix in prefixes
        for k in range(20)
    ]
    past = factory.Past(START, START + DAY, counters=rows)
    assert "<script" not in render_field(past.document())
    text_of(past.document())


def test_an_empty_period_is_said_plainly() -> None:
    document = factory.Past(START, START + DAY).document()
    text = text_of(document)
    for key in ("field.verdict.nothing", "field.uptime.none", "field.limits.no_counters"):
        assert catalogue()(key) in text
    assert document.format == FORMAT and document.zone == "UTC"


def test_alerts_without_counters_and_counters_without_alerts(week: factory.Past) -> None:
    alone = replace(week, counters=[]).document()
    assert not alone.judged.days_counted and alone.judged.days == 7
    text = text_of(alone)
    assert catalogue()("field.verdict.up_unknown") in text
    assert catalogue()("field.verdict.lost_unknown") in text
    quiet = replace(week, events=[], verdicts=[], incidents=[]).document()
    assert catalogue()("field.verdict.quiet") in text_of(quiet)


@pytest.mark.parametrize("files", ["all", "half"])
def test_packets_of_a_folder_were_not_mirrored(files: str) -> None:
    at = {"all": 900, "half": 500}[files]
    rows: list[factory.Row] = [
        (START + k * MINUTE, "sensor", "run", name, value)
        for k in range(60)
        for name, value in (("packets", 900.0), ("packets_from_files", float(at)), ("flows", 9.0))
    ]
    document = factory.Past(START, START + DAY, counters=rows).document()
    loss = document.loss
    assert (loss.from_files, loss.mirrored) == (60 * at, 60 * (900 - at))
    text = text_of(document)
    assert catalogue()("field.verdict.from_files", count=60 * at) in text
    assert catalogue()("field.limits.files") in text
    if files == "all":
        assert "mirror" not in text and "no packet" not in text.lower()
    else:
        assert "All 24,000 mirrored packets were read." in text
        assert catalogue()("field.limits.mirror") in text


def test_packets_of_files_are_no_part_of_the_share_that_was_dropped() -> None:
    rows: list[factory.Row] = [
        (START, "sensor", "run", "packets", 1000.0),
        (START, "sensor", "run", "packets_from_files", 900.0),
        (START, "sensor", "run", "kernel_dropped", 100.0),
    ]
    loss = factory.Past(START, START + DAY, counters=rows).document().loss
    assert (loss.kernel_dropped, loss.mirrored) == (100, 200)
    assert loss.drop_share[0] == pytest.approx(0.5)


def test_every_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_counts, "MAX_KEYS", 300)
    monkeypatch.setattr(field_events, "MAX_KEPT", 200)
    rows: list[factory.Row] = []
    for k in range(400):
        rows.append((START + k * 5 * MINUTE, f"s{k % 11}", f"r{k}", f"service/{k}", 1.0))
        rows.append((START + k * 5 * MINUTE, f"s{k % 11}", f"r{k}", f"gauge/rss/{k}", 1.0))
    past = factory.Past(START, START + 120 * DAY, counters=rows)
    past.events = [
        factory.alert_at(n, START + n * DAY // 5, host=f"h{n}", family=f"f{n}", application=f"a{n}")
        for n in range(590)
    ]
    document = past.document()
    text_of(document)
    found = document.found
    assert len(found.hosts) + found.more_hosts == found.hosts_told == 200 and found.alerts == 590
    assert len(found.families) + found.more_families == 200
    assert len(found.days) == 93 and found.more_days == 118 - 93
    assert len(document.uptime.gaps) == field_counts.SHOWN_GAPS and document.uptime.more_gaps
    assert len(document.uptime.sensors) == 8 and document.uptime.more_sensors == 3
    assert "damaged" in document.limits


def check_balance(balance: Balance) -> None:
    assert sum(part.count for part in balance.parts) + balance.rest == balance.total


NAMES = (
    *("packets", "decoded", "kernel_dropped", "refused/NOT_IP", "refused/new", "rows_ended"),
    *("rows_early", "flows", "bytes", "dropped/early", "dropped/ended", "up_s", "service/tls"),
    *("alerts/flow", "fate/told", "fate/repeat", "delay_sum_s", "delay_count", "delay_max_s"),
    *("restarts/judge", "cpu_s/judge", "gauge/rss/judge", "gauge/score_psi", "gauge/cores"),
    *("gauge/pending/0", "score/3", "subscribers_seen", "interruptions", "store_faults"),
)
VALUES = st.one_of(
    st.integers(0, 10**12).map(float),
    st.floats(0, 1e300),
    st.sampled_from([float("inf"), -1.0, float("nan"), 2.0**63, 5e-324]),
)


@examples(
    60,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a page takes minutes
)
@given(
    st.lists(
        st.tuples(
            st.integers(-5, 1500),
            st.sampled_from(["s", "", HOSTILE_NAMES[0]]),
            st.sampled_from(["a", "b"]),
            st.one_of(st.sampled_from(NAMES), st.text(max_size=12)),
            VALUES,
        ),
        max_size=60,
    ),
    st.integers(1, 3 * 1440),
)
def test_any_counters_give_a_page_whose_balances_add_up(
    rows: list[tuple[int, str, str, str, float]], minutes: int
) -> None:
    counters = [(START + row[0] * MINUTE, *row[1:]) for row in rows]
    past = factory.Past(START, START + minutes * MINUTE, counters=counters)
    document = past.document()
    for balance in (document.loss.packets, document.loss.records, document.found.policy):
        check_balance(balance)
    assert FieldDocument.model_validate(document.to_json()) == document
    assert len(document.carried.packet_rate) == document.grid.steps
    text_of(document)


def test_balances_of_a_week_add_up_exactly(week: factory.Past) -> None:
    loss = week.document().loss
    assert loss.packets.rest == loss.records.rest == 0
    assert {part.name for part in loss.packets.parts} == {"OK", "NOT_IP", "LATER_FRAGMENT"}
    assert loss.mirrored == total(week, "packets") + total(week, "kernel_dropped")
    text = text_of(week.document())
    assert catalogue()("field.balance.exact") in text


def test_more_refusals_than_are_listed_still_add_up() -> None:
    rows: list[factory.Row] = [(START, "s", "a", f"refused/{k}", k + 1.0) for k in range(60)]
    rows.append((START, "s", "a", "packets", 60 * 61 / 2))
    balance = factory.Past(START, START + DAY, counters=rows).document().loss.packets
    assert balance.rest == 0 and balance.parts[-1].name == "other"


def test_steps_are_whole_minutes_and_cover_the_period() -> None:
    for minutes in (1, 2, 59, 1440, 10_080, MAX_DAYS * 1440):
        for shift in (0, 17 * SECOND):
            since, until = START + shift, START + shift + minutes * MINUTE
            grid = field_grid(since, until)
            assert grid.step_ns % MINUTE == 0 and grid.steps <= 122
            assert grid.start_ns <= since < grid.start_ns + grid.step_ns
            end = grid.start_ns + grid.steps * grid.step_ns
            assert end - grid.step_ns < until <= end


@pytest.mark.parametrize(("since", "until"), [(5, 5), (5, 4), (0, (MAX_DAYS + 1) * DAY)])
def test_a_period_that_is_none_is_refused(since: int, until: int) -> None:
    with pytest.raises(VeilwatchError):
        field_grid(since, until)


def test_counters_outside_the_grid_are_left_aside() -> None:
    row = CounterStep(START - DAY, "s", "packets", 1.0, 1.0, 1, 1)
    document = build_field(
        since_ns=START,
        until_ns=START + DAY,
        counts=[row],
        minutes=[],
        events=[],
        incidents=[],
        made_at=datetime(2026, 7, 1, tzinfo=UTC),
    )
    assert document.carried.packets == 0 and "damaged" in document.limits
