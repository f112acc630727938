"""What pages look like in a browser: nothing runs out, runs together, breaks in two or is unseen.

Headless Chromium shows every kind of page at three widths, light and dark, and on paper. Its
pictures stay in the folder of the test run (`--basetemp`), for people to look at.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripts.browser import Browser, find_browser
from scripts.make_picture import MAX_HEIGHT, make_picture

from tests.report import comparison_factory, factory, field_factory
from tests.report.test_document import document
from veilwatch.report.comparison.page import render_comparison
from veilwatch.report.detection.page import render_html
from veilwatch.report.evaluation.page import render_evaluation
from veilwatch.report.field.page import render_field

CHROMIUM = find_browser()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

WIDTHS = (400, 1000, 1400)
LOOKS = [(width, dark) for width in WIDTHS for dark in (False, True)]

MIN_TEXT_PX = 9.0
"""Smallest text of a drawing, as it is shown."""

MIN_CONTRAST = 4.5
"""WCAG 2.1, success criterion 1.4.3, text of usual size."""

LONG = "a-rather-long-name-of-a-server.in-a-long-zone.of-some-cloud.region-4.example"
IPV6 = "2001:db8:85a3:8d3:1319:8a2e:370:7348"


def report_page() -> str:
    scene = factory.scene()
    return render_html(document(scene, evaluation=scene.evaluation))


def hostile_page() -> str:
    scene = factory.scene(hostile=True, infected_hosts=5)
    page = document(scene, evaluation=folded())
    cards = [
        card.model_copy(
            update={
                "alert": card.alert.model_copy(update={"host": IPV6, "score": 1 - 10**-k}),
                "servers": tuple(
                    s.model_copy(update={"name": LONG, "address": IPV6}) for s in card.servers
                ),
            }
        )
        for k, card in enumerate(page.hosts, 2)
    ]
    alerts = [a.model_copy(update={"dst_ip": IPV6, "application": LONG}) for a in page.alerts]
    return render_html(page.model_copy(update={"hosts": tuple(cards), "alerts": tuple(alerts)}))


def folded() -> dict[str, Any]:
    """An evaluation of every level, with the mean of folds beside it."""
    whole = factory.evaluation()
    whole["host_window"] = whole["capture_with_windows"] = whole["flow"]
    return whole | {"mean_of_folds": {name: whole[name] for name in ("flow", "capture")}}


PAGES: dict[str, Any] = {
    "report": report_page,
    "hostile": hostile_page,
    "quiet": lambda: render_html(document(factory.scene(alerts=False))),
    "evaluation": lambda: render_evaluation(folded(), model="LightGBM", emulated=True),
    "field": lambda: render_field(field_factory.past(every=30).document()),
    "hostile field": lambda: render_field(
        field_factory.past(days=2, every=30, hostile=True).document()
    ),
    "comparison": lambda: render_comparison(comparison_factory.comparison()),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest, folder: Path) -> Path:
    path = folder / f"{request.param.replace(' ', '-')}.html"
    path.write_text(PAGES[request.param](), encoding="utf-8")
    return path


PRELUDE = """
const shown = e => e.checkVisibility() && e.getClientRects().length > 0;
const every = s => [...document.querySelectorAll(s)].filter(shown);
const text = e => e.textContent.replace(/\\s+/g, ' ').trim().slice(0, 60);
const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 5;  // font boxes are taller than lines
"""


def look(browser: Browser, body: str) -> Any:
    return browser.value(f"(() => {{ {PRELUDE} {body} }})()")


@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_page_fits_and_can_be_read(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.show(page, width, dark=dark)
    browser.picture(page.with_name(f"{page.stem}-{width}-{'dark' if dark else 'light'}.png"))
    assert browser.complaints() == []
    assert look(browser, "return innerWidth") == width
    assert look(browser, "return document.scrollingElement.scrollWidth") <= width
    for name, check in CHECKS.items():
        found = look(browser, check)
        assert not found, f"{name}: {found[:5]}"


CHECKS = {
    "stands out of its card, which neither scrolls nor says so": """
        const cued = e => getComputedStyle(e).overflowX === 'auto'
          && getComputedStyle(e).backgroundImage.includes('gradient') && e.tabIndex === 0;
        const out = [];
        for (const e of every('body *')) {
          if (e.closest('svg') && e.tagName !== 'svg' && e.tagName !== 'text') continue;
          if (e.closest('.banner')) continue;
          let holder = e.parentElement;
          while (holder && !cued(holder)) holder = holder.parentElement;
          if (holder) continue;
          const card = e.closest('.panel, .card, .alerts, .tile') || document.body;
          const inner = card.getBoundingClientRect(), box = e.getBoundingClientRect();
          if (box.width && (box.right > inner.right + 1 || box.right > innerWidth + 1))
            out.push([e.tagName, e.className.baseVal ?? e.className, text(e)]);
        }
        return out;""",
    "texts run into each other in a row": """
        const out = [];
        for (const row of every('summary.row, .servers li, .head, .score, tr, .tile, .ends')) {
          const parts = [...row.children].filter(shown).map(e => {
            const range = document.createRange(); range.selectNodeContents(e);
            return [e, [...range.getClientRects()].filter(r => r.width > 0)];
          });
          for (let i = 0; i < parts.length; i++)
            for (let j = i + 1; j < parts.length; j++)
              for (const a of parts[i][1]) for (const b of parts[j][1])
                if (overlap(a, b)) { out.push([text(parts[i][0]), text(parts[j][0])]); }
        }
        return out;""",
    "labels of a drawing run into each other": """
        const out = [];
        for (const svg of every('svg')) {
          const labels = [...svg.querySelectorAll('text')];
          const boxes = labels.map(e => e.getBoundingClientRect());
          for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++)
            if (overlap(boxes[i], boxes[j])) out.push([text(labels[i]), text(labels[j])]);
        }
        return out;""",
    "labels of a drawing stand out of it": """
        const out = [];
        for (const svg of every('svg')) {
          const room = svg.getBoundingClientRect();
          for (const e of svg.querySelectorAll('text')) {
            const box = e.getBoundingClientRect();
            if (box.left < room.left - 8 || box.right > room.right + 8) out.push(text(e));
          }
        }
        return out;""",
    "text of a drawing is too small": f"""
        return every('svg text').filter(e => {{
          const scale = e.getScreenCTM().a;
          return parseFloat(getComputedStyle(e).fontSize) * scale < {MIN_TEXT_PX};
        }}).map(text);""",
    "a chart has shrunk to nothing": """
        return every('svg.wide, svg.medium, svg.narrow, svg.half').filter(e => {
          const box = e.getBoundingClientRect(), drawn = e.viewBox.baseVal;
          return box.width < 240 || box.height < 0.75 * drawn.height;
        }).map(e => e.getAttribute('aria-label'));""",
    "a drawing is shown more than once or not at all": """
        const out = [];
        for (const first of document.querySelectorAll('svg.wide, svg.half')) {
          const all = [first];
          while (all.at(-1).nextElementSibling?.matches('svg.medium, svg.narrow'))
            all.push(all.at(-1).nextElementSibling);
          const closed = first.closest('details:not([open])');
          if (!closed && all.filter(shown).length !== 1) out.push(first.getAttribute('aria-label'));
        }
        return out;""",
    "an address, a time or a figure is broken in two": """
        const out = [], lines = e => {
          const range = document.createRange(); range.selectNodeContents(e);
          return new Set([...range.getClientRects()].map(r => Math.round(r.top))).size;
        };
        const room = innerWidth > 500 ? 45 : 24;
        for (const e of every('td.time, span.time, td.number, span.number, .address bdi,'
            + '.severity, .tile dd:not(.note)'))
          if (e.textContent.trim().length <= room && lines(e) > 1) out.push(text(e));
        for (const e of every('.endpoint .mono, .flow .whole'))
          if (e.textContent.trim().length <= 24 && lines(e) > 1) out.push(text(e));
        return out;""",
    "a name is broken every few letters": """
        const out = [];
        for (const e of every('bdi')) {
          if (e.textContent.length < 8) continue;
          const range = document.createRange(); range.selectNodeContents(e);
          const tops = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
          const words = e.textContent.trim().split(/[\\s\\-.\\/_:@?&=]+/).length;
          if (tops.size > words && e.textContent.length / tops.size < 8) out.push(text(e));
        }
        return out;""",
    "a curve cannot be seen": """
        return every('polyline').filter(e => {
          const style = getComputedStyle(e);
          return ['none', 'transparent', 'rgba(0, 0, 0, 0)'].includes(style.stroke)
            || parseFloat(style.strokeWidth) < 1 || e.getTotalLength() < 3
            || style.fill !== 'none';
        }).map(e => e.getAttribute('class'));""",
    "two curves of one drawing look alike": """
        const out = [];
        for (const svg of every('svg')) {
          const seen = {};  // a line with gaps is several of one class
          for (const e of svg.querySelectorAll('polyline')) {
            const style = getComputedStyle(e), look = style.stroke + style.strokeDasharray;
            const name = e.getAttribute('class');
            if ((seen[look] ??= name) !== name) out.push([name, seen[look]]);
          }
        }
        return out;""",
    "a bar has no colour": """
        return every('svg rect').filter(e => {
          const fill = getComputedStyle(e).fill;
          return fill === 'none' || fill === 'rgba(0, 0, 0, 0)' || fill === 'rgb(0, 0, 0)';
        }).map(e => e.getAttribute('class'));""",
    "text has too little contrast": f"""
        const parse = c => c.match(/[\\d.]+/g).map(Number);
        const light = c => {{
          const [r, g, b] = c.map(v => {{
            v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
          }});
          return .2126 * r + .7152 * g + .0722 * b;
        }};
        const ground = e => {{
          for (; e; e = e.parentElement) {{
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] === 1) return c.slice(0, 3);
          }}
          return [255, 255, 255];
        }};
        const out = [], seen = new Set();
        const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) {{
          const e = walk.currentNode.parentElement;
          if (!walk.currentNode.data.trim() || !shown(e) || seen.has(e)) continue;
          seen.add(e);
          const style = getComputedStyle(e);
          const ink = parse(e.closest('svg') ? style.fill : style.color).slice(0, 3);
          const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
          const ratio = (a + .05) / (b + .05);
          if (ratio < {MIN_CONTRAST}) out.push([text(e), ratio.toFixed(2)]);
        }}
        return out;""",
    "badges of one severity look different": """
        const looks = {};
        for (const e of every('.severity')) {
          const style = getComputedStyle(e);
          const look = [style.backgroundColor, style.color, style.boxShadow, style.width].join();
          (looks[e.className] ??= new Set()).add(look);
        }
        return Object.entries(looks).filter(([, set]) => set.size > 1).map(([name]) => name);""",
    "a head of a column does not say that it is one": """
        return [...document.querySelectorAll('th:not([scope]), thead th:empty')].map(text);""",
    "an axis has fewer than two names": """
        const out = [];
        for (const svg of every('svg.wide, svg.medium, svg.narrow, svg.half')) {
          const bottom = [...svg.querySelectorAll('line.axis')].length;
          const names = new Set([...svg.querySelectorAll('text')].map(text));
          if (bottom && names.size < 2) out.push(svg.getAttribute('aria-label'));
        }
        return out;""",
}


def test_a_fault_of_each_kind_is_seen(browser: Browser, folder: Path) -> None:
    """The checks themselves: a page with every fault fails each of those that apply."""
    path = folder / "faulty.html"
    path.write_text(
        """<!DOCTYPE html><style>.panel{width:300px;overflow:visible}.row{display:flex}
        svg{display:block;width:100px}text{font-size:6px}.number{display:block;width:2ch;
        overflow-wrap:anywhere}bdi{display:block;width:3ch;overflow-wrap:anywhere}
        p{color:#888;background:#999}.severity{display:inline}</style>
        <div class="panel"><table><tr><td><div style="width:500px;height:9px"></div></table></div>
        <details open><summary class="row"><span style="margin-right:-40px">first text</span>
        <span>second</span></summary></details>
        <svg class="plot" style="width:300px" viewBox="0 0 300 90"><text x="0" y="9"
        style="font-size:12px">aaaaaaaa</text><text x="9" y="9" style="font-size:12px">bbbbbb</text>
        <text x="290" y="50" style="font-size:12px">cccccccccccccccc</text></svg>
        <svg class="plot wide" viewBox="0 0 1000 300" aria-label="x"><text x="9" y="9">a</text>
        <line class="axis"/><polyline class="a" points="0,0 9,9"/>
        <polyline class="b" points="0,0 9,9"/>
        <rect width="9" height="9"/></svg>
        <span class="number">12,345,678</span><bdi>example.example</bdi><p>grey on grey</p>
        <i class="severity" style="color:red">a</i><i class="severity">b</i>
        <table><thead><tr><th>x</th></tr></thead></table>""",
        encoding="utf-8",
    )
    browser.show(path, 1000)
    seen = {name for name, check in CHECKS.items() if look(browser, check)}
    missed = CHECKS.keys() - seen
    assert missed == {"a drawing is shown more than once or not at all"}


def test_score_bars_differ_though_all_scores_are_near_one(browser: Browser, folder: Path) -> None:
    path = folder / "hostile.html"
    path.write_text(hostile_page(), encoding="utf-8")
    browser.show(path, 1400)
    bars = look(
        browser,
        "return every('svg.bar').map(e => e.querySelector('rect.alert').width.baseVal.value)",
    )
    assert len(bars) == 5 and bars == sorted(set(bars))
    assert bars[0] < 0.6 * bars[-1]


def test_the_picture_of_the_readme_ends_below_a_card(folder: Path) -> None:
    path, picture = folder / "readme.html", folder / "images" / "readme.png"
    path.write_text(report_page(), encoding="utf-8")
    make_picture(path, picture)
    head = picture.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
    assert width == 1200 and 900 < height <= MAX_HEIGHT


def test_every_level_of_an_evaluation_has_a_curve(browser: Browser, folder: Path) -> None:
    path = folder / "levels.html"
    path.write_text(render_evaluation(folded()), encoding="utf-8")
    for width in WIDTHS:
        browser.show(path, width)
        drawn = look(
            browser,
            "return every('figure.roc svg.plot').map(s => s.querySelectorAll('polyline').length)",
        )
        assert drawn == [2, 5]


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed")
def test_on_paper_heads_come_again_and_never_stand_alone(browser: Browser, page: Path) -> None:
    browser.show(page, 1000)
    heads = look(
        browser,
        """const norm = e => [...e.cells].map(text).filter(Boolean).join(' ');
        return every('thead tr').filter(e => e.cells.length > 1).map(norm);""",
    )
    titles = look(browser, "return every('h2, h3').map(text)")
    pdf = page.with_suffix(".pdf")
    browser.pdf(pdf)
    said = subprocess.run(
        ["pdftotext", "-layout", str(pdf), "-"], capture_output=True, check=True, text=True
    )
    sheets = [sheet for sheet in said.stdout.split("\f") if sheet.strip()]
    words = [[re.sub(r"\s+", " ", line).strip() for line in s.splitlines()] for s in sheets]
    for sheet in words:
        last = [line for line in sheet if line][-1]
        assert last not in heads and last not in titles, last
    assert len(sheets) > 1 or "evaluation" in page.name or "quiet" in page.name


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed")
def test_alerts_on_several_sheets_have_their_head_on_each(browser: Browser, folder: Path) -> None:
    path = folder / "alerts.html"
    path.write_text(report_page(), encoding="utf-8")
    browser.show(path, 1000)
    browser.pdf(path.with_suffix(".pdf"))
    said = subprocess.run(
        ["pdftotext", "-layout", str(path.with_suffix(".pdf")), "-"],
        capture_output=True,
        check=True,
        text=True,
    )
    line = r"(High|Medium|Low) +0\.\d{3} +2026-06-01"
    sheets = [sheet for sheet in said.stdout.split("\f") if re.search(line, sheet)]
    assert len(sheets) > 1
    assert sum(len(re.findall(line, sheet)) for sheet in sheets) == 68
    for sheet in sheets:
        before = re.split(line, sheet)[0]
        assert re.search(r"Severity +Score +Time \(UTC\) +From, to", before)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed")
def test_a_table_of_several_sheets_has_its_head_on_each(browser: Browser, folder: Path) -> None:
    past = field_factory.past(days=60, alerts=400, every=1440)
    path = folder / "long.html"
    path.write_text(render_field(past.document()).replace("<details>", "<details open>"))
    browser.show(path, 1000)
    browser.pdf(path.with_suffix(".pdf"))
    said = subprocess.run(
        ["pdftotext", "-layout", str(path.with_suffix(".pdf")), "-"],
        capture_output=True,
        check=True,
        text=True,
    )
    sheets = said.stdout.split("\f")
    days = [sheet for sheet in sheets if re.search(r"2026-0\d-\d\d +\d+ +\d+ +\d+ +\d+", sheet)]
    assert len(days) > 1
    for sheet in days:
        before = re.split(r"2026-0\d-\d\d +\d+ +\d+ +\d+ +\d+", sheet)[0]
        assert re.search(r"Day +High +Medium +Low", before)
