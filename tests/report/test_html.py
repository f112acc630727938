"""The page is whole, inert, bounded, and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import polars as pl
import pytest

from tests.report import factory
from tests.report.test_document import document
from veilwatch.report.catalogue import catalogue
from veilwatch.report.detection.page import render_html
from veilwatch.report.evaluation.page import render_evaluation
from veilwatch.report.html import code, soft

MAX_PAGE = 2_500_000
"""Bytes of the largest page: it must open at once and pass through mail."""

KNOWN_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "p", "header", "h1", "h2", "h3", "h4"),
    *("dl", "dt", "dd", "div", "nav", "a", "main", "section", "article", "span", "strong", "b"),
    *("bdi", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure"),
    *("figcaption", "br", "wbr", "ul", "li", "footer", "code"),
    *("svg", "rect", "line", "text", "polyline", "circle"),
}
VOID = {"meta", "br", "wbr"}


class Page(HTMLParser):
    """Tags and attributes as a browser would see them; checks that they close."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self._broken = False
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self._broken = tag == "wbr"  # a name goes on behind it
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._broken = False

    def handle_data(self, data: str) -> None:
        if self._broken:
            self.text[-1] += data
            self._broken = False
        else:
            self.text.append(data)


def check_inert(html: str) -> Page:
    page = Page(html)
    assert page.tags <= KNOWN_TAGS
    for tag, key, value in page.attributes:
        assert not key.startswith("on") and key not in ("src", "style", "srcset", "xlink:href")
        if key == "href":
            assert tag == "a" and re.fullmatch(r"#[a-z]+", value)
    style = html.split("<style>")[1].split("</style>")[0]
    assert not re.search(r"@import|url\(|expression", style)
    policy = next(v for _, k, v in page.attributes if k == "content" and "default-src" in v)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert "script" not in policy and "unsafe" not in policy
    return page


SCENES: dict[str, Any] = {
    "usual": factory.scene,
    "hostile": lambda: factory.scene(hostile=True),
    "no alerts": lambda: factory.scene(alerts=False),
    "no packets": factory.empty_scene,
    "one flow": lambda: factory.scene(benign_hosts=1, infected_hosts=0, flows_per_host=1),
}


@pytest.mark.parametrize("name", SCENES)
def test_page_is_inert_and_complete(name: str) -> None:
    scene = SCENES[name]()
    html = render_html(document(scene, evaluation=scene.evaluation))
    page = check_inert(html)
    ids = {value for _, key, value in page.attributes if key == "id"}
    links = {value[1:] for _, key, value in page.attributes if key == "href"}
    assert links <= ids and len(html.encode()) < MAX_PAGE
    assert not re.search(r"\b(nan|inf|None)\b", " ".join(page.text))


def test_hostile_names_are_shown_as_text() -> None:
    page = check_inert(render_html(document(factory.scene(hostile=True, infected_hosts=12))))
    text = "\n".join(page.text)
    for name in (
        "<script>alert(1)</script>",
        '"><img src=http://evil.example/x onerror=alert(1)>',
        "{{ 7*7 }}{% raw %}",
        r"two\nlines\r\nand\ttabs",
        r"\u202egnp.exe\u202c.example",
        "病院.example",
    ):
        assert name in text


def test_hostile_text_in_every_field_that_a_file_or_a_manifest_fills() -> None:
    scene = factory.scene(infected_hosts=2)
    bad = "<script>alert(1)</script>{{ 7*7 }}\u202e"
    for report in scene.captures.files:
        report.name = report.format = report.fault = bad
        report.comments = [bad]
    scene.manifest.update({"name": bad, bad: bad, "training": {bad: bad}})
    html = render_html(
        document(
            scene,
            title=bad,
            command=bad,
            alerts_file=bad,
            evaluation=factory.evaluation()
            | {
                "families": {bad: {"n": 1, "detection_rate": 1}},
                "benign_kinds": {bad: {"n": 1, "alerted": 1}},
            },
        )
    )
    check_inert(html)
    assert "<script" not in html and "\u202e" not in html and "{{ 7*7 }}" in html


def test_names_may_break_behind_dots_and_code_is_marked_all_escaped() -> None:
    assert soft("a.b<i>.c/1") == "a.<wbr>b&lt;i&gt;.<wbr>c/<wbr>1"
    assert soft("...") == "..." and soft("") == ""
    assert code("run `a <b>` & go") == "run <code>a &lt;b&gt;</code> &amp; go"
    assert code("one ` only") == "one ` only"


@pytest.mark.parametrize("emulated", [True, False])
def test_emulated_traffic_is_said_first(emulated: bool) -> None:
    scene = factory.scene(infected_hosts=1, emulated=emulated)
    html = render_html(document(scene))
    banner = catalogue()("emulated.banner")
    assert (banner in html) is emulated
    if emulated:
        assert html.index(banner) < html.index("<h1>")


def test_ten_thousand_alerts_stay_readable() -> None:
    scene = factory.scene(infected_hosts=60, benign_hosts=2, flows_per_host=500, hostile=True)
    assert len(scene.alerts) > 10_000
    html = render_html(document(scene))
    check_inert(html)
    assert len(html.encode()) < MAX_PAGE
    more = len(scene.alerts) - 60 - 100
    assert f"and {more:,} more in alerts.json" in html and "and 36 more in alerts.json" in html


@pytest.mark.parametrize(
    ("scene", "sentence"),
    [
        (factory.scene, "3 of 29 hosts show traffic like malware."),
        (lambda: factory.scene(infected_hosts=1), "1 of 27 hosts shows traffic like malware."),
        (lambda: factory.scene(alerts=False), "No flow reached the alert threshold."),
        (factory.empty_scene, "No packet could be read, so nothing was judged."),
    ],
)
def test_verdict(scene: Any, sentence: str) -> None:
    assert f"<h1>{sentence}</h1>" in render_html(document(scene()))


def test_alerts_that_chance_explains_are_called_so() -> None:
    scene = factory.scene(infected_hosts=1)
    few = [alert for alert in scene.alerts if alert.kind == "flow"][:2]
    kept = pl.col("flow_id").is_in([alert.flow_id for alert in few])
    scores = replace(
        scene.scores, flows=scene.scores.flows.with_columns(alert=pl.col("alert") & kept)
    )
    note = catalogue()("chance.within")
    assert note in render_html(document(scene, alerts=few, scores=scores))
    assert note not in render_html(document(scene))


def test_evaluation_page() -> None:
    page = check_inert(render_evaluation(factory.evaluation(), model="<b>x</b>", emulated=True))
    text = " ".join(page.text)
    assert "<b>BlackCat</b>" in text and "0.988" in text and "polyline" in page.tags
    assert catalogue()("emulated.banner") in text


def test_evaluation_page_counts_captures_of_families_and_leads_with_the_mean_of_folds() -> None:
    figures = factory.evaluation()
    flow = figures["flow"] | {"detection_rate_at_fpr": {"0.01": 0.4321}}
    whole = figures | {
        "families": {"Quoll": {"n": 12, "detection_rate": 0.25}},
        "mean_of_folds": {"flow": flow},
    }
    text = " ".join(check_inert(render_evaluation(whole)).text)
    assert "3 of 12" in text
    assert catalogue()("evaluation.verdict", rate="43.2 %") in text
    assert catalogue()("evaluation.folds") in text
    assert catalogue()("evaluation.folds") not in " ".join(
        check_inert(render_evaluation(figures)).text
    )


def test_evaluation_page_shows_used_hosts_and_false_alarms_by_kind() -> None:
    figures = factory.evaluation()
    merged = catalogue()("evaluation.merged")
    assert merged not in " ".join(check_inert(render_evaluation(figures)).text)
    kinds = {f"kind-{k}": {"n": 50, "alerted": k} for k in range(60)}
    figures |= {"used_host_x1": figures["flow"], "benign_kinds": kinds}
    text = " ".join(check_inert(render_evaluation(figures)).text)
    assert merged in text and catalogue()("level.used_host_x1") in text
    shown = [int(number) for number in re.findall(r"kind-(\d+)", text)]
    assert shown == list(range(59, 19, -1))  # bounded, most false alarms first


def test_evaluation_page_without_curves_families_or_figures() -> None:
    bare = {
        "flow": {
            "n_positive": 0,
            "n_negative": 12,
            "roc_auc": float("nan"),
            "average_precision": None,
            "detection_rate_at_fpr": {"0.1": None},
        }
    }
    assert "polyline" not in check_inert(render_evaluation(bare)).tags
    check_inert(render_evaluation({}))
