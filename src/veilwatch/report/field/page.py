"""A field report as one HTML page, and the sentences that depend on its figures."""

from __future__ import annotations

from typing import Final

from veilwatch.report import units
from veilwatch.report.catalogue import Text, catalogue
from veilwatch.report.field import document as doc
from veilwatch.report.field import plots as field_plots
from veilwatch.report.field.figures import MIN_DAYS, MIN_TREND_S, MIN_VERDICTS
from veilwatch.report.html import page
from veilwatch.schema.counters import MIN_DRIFT_FLOWS
from veilwatch.schema.units import DAY_S, SECOND_NS

PSI_USUAL: Final = 0.1
PSI_OTHER: Final = 0.25
"""Bounds of the index in common use (Siddiqi, Credit Risk Scorecards, 2006)."""


SHOWN_DAYS: Final = 14
"""Days that stand in the page at once; the others wait behind one line."""


def render_field(document: doc.FieldDocument, *, language: str = "en") -> str:
    """Return one self-contained HTML page of a field report.

    Parameters
    ----------
    document
        What to say.
    language
        Text catalogue to say it in.
    """
    return page(
        "field.html.j2",
        catalogue(language),
        d=document,
        curves=field_plots,
        say=Sentences(document, catalogue(language)),
        shown_days=SHOWN_DAYS,
        seconds=seconds,
        amount=amount,
        bytes=lambda value: "–" if value is None else units.size(value),
    )


class Sentences:
    """Sentences whose words follow from the figures.

    Parameters
    ----------
    document
        The report.
    text
        Words of its language.
    """

    def __init__(self, document: doc.FieldDocument, text: Text) -> None:
        self._document = document
        self._text = text

    def verdict(self) -> str:
        """Return the heading: what was found."""
        text, found = self._text, self._document.found
        if self.is_empty():
            return text("field.verdict.nothing")
        if not found.alerts:
            return text("field.verdict.quiet")
        hosts = text("field.verdict.hosts", count=found.hosts_alerted)
        told = text("field.verdict.alerts", count=found.alerts, hosts=hosts)
        if found.incidents:
            told += text("field.verdict.incidents", count=found.incidents)
        return told

    def is_empty(self) -> bool:
        """Whether nothing at all is known of the period."""
        document = self._document
        found = document.found
        counted = found.alerts + found.incidents + found.summaries + found.tests
        return not (document.counters or document.uptime.sensors or counted)

    def leads(self) -> list[str]:
        """Return the sentences below the heading."""
        if self.is_empty():
            return [self._text("field.verdict.nothing_lead")]
        return [self._up(), self._lost(), *self._false()]

    def _up(self) -> str:
        uptime = self._document.uptime
        if uptime.up_share is None:
            return self._text("field.verdict.up_unknown")
        return self._text(
            "field.verdict.up",
            up=seconds(uptime.up_share * uptime.period_s),
            period=seconds(uptime.period_s),
            share=units.percent(uptime.up_share),
        )

    def _lost(self) -> str:
        text, loss = self._text, self._document.loss
        if not (loss.mirrored or loss.from_files):
            return text("field.verdict.lost_unknown")
        said = []
        if loss.mirrored:
            said.append(
                text(
                    "field.verdict.lost" if loss.kernel_dropped else "field.verdict.lost_none",
                    lost=loss.kernel_dropped,
                    mirrored=loss.mirrored,
                    share=units.share(loss.kernel_dropped, loss.mirrored),
                )
            )
        if loss.from_files:
            said.append(text("field.verdict.from_files", count=loss.from_files))
        return " ".join(said)

    def _false(self) -> list[str]:
        text, judged = self._text, self._document.judged
        everything, estimate = judged.lines[-1], judged.false_per_day
        if not everything.alerts:
            return []
        decided = everything.true_positive + judged.false_known
        if not decided:
            return [text("field.verdict.false_unknown", count=everything.alerts)]
        if estimate.value is None:
            return [self.false_needs()]
        return [
            text(
                "field.verdict.false_all"
                if decided == everything.alerts
                else "field.verdict.false",
                value=amount(estimate.value),
                low=amount(estimate.low),
                high=amount(estimate.high),
                decided=decided,
                alerts=everything.alerts,
            )
        ]

    def false_per_day(self) -> str:
        """Return how the false alerts a day were estimated, '' where they were not."""
        judged = self._document.judged
        estimate, everything = judged.false_per_day, judged.lines[-1]
        if estimate.value is None:
            return ""
        decided = everything.true_positive + judged.false_known
        return self._text(
            "field.verdicts.per_day" if judged.days_counted else "field.verdicts.per_day_period",
            value=amount(estimate.value),
            low=amount(estimate.low),
            high=amount(estimate.high),
            known=judged.false_known,
            rest=everything.alerts - decided,
            days=amount(judged.days),
        )

    def false_needs(self) -> str:
        """Return what it takes to estimate false alerts a day, '' where they were estimated."""
        text, judged = self._text, self._document.judged
        everything = judged.lines[-1]
        if judged.false_per_day.value is not None or not everything.alerts:
            return ""
        wants = []
        if judged.more_s:
            wants.append(
                text(
                    "field.verdicts.wants_time",
                    least=seconds(MIN_DAYS * DAY_S),
                    so_far=seconds(judged.days * DAY_S),
                )
            )
        if judged.more_verdicts:
            wants.append(text("field.verdicts.wants", count=judged.more_verdicts))
        joined = text("field.verdicts.wants_join").join(wants)
        return text("field.verdicts.needs", wants=joined)

    def precision_note(self) -> str:
        """Return from how many verdicts on precision is shown, '' where it is."""
        lines = self._document.judged.lines
        if all(line.precision.value is not None for line in lines if line.alerts):
            return ""
        return self._text("field.verdicts.precision_from", least=MIN_VERDICTS)

    def delay_note(self, delay: doc.Delay) -> str:
        """Return what stands below the median delay."""
        if delay.median_s is None:
            return self._text("field.key.delay_none")
        if delay.p90_s is None:
            return self._text("field.key.delay_few", count=delay.alerts)
        return self._text("field.key.delay_note", p90=seconds(delay.p90_s))

    def false_note(self) -> str:
        """Return what stands below the number of false alerts a day."""
        estimate, everything = self._document.judged.false_per_day, self._document.judged.lines[-1]
        if estimate.value is not None:
            low, high = amount(estimate.low), amount(estimate.high)
            return self._text("field.key.false_note", low=low, high=high)
        decided = everything.true_positive + self._document.judged.false_known
        return self._text("field.key.false_few" if decided else "field.key.false_none")

    def balance(self, balance: doc.Balance) -> str:
        """Return whether a balance adds up."""
        if not balance.total and not any(part.count for part in balance.parts):
            return self._text("field.balance.nothing")
        if not balance.rest:
            return self._text("field.balance.exact")
        key = "open" if balance.rest > 0 else "excess"
        return self._text(f"field.balance.{key}", count=abs(balance.rest))

    def part(self, name: str) -> str:
        """Return the name of a part of a balance in words."""
        for key in (f"field.fate.{name}", f"field.balance.{name}", f"status.{name}"):
            if self._text.has(key):
                return self._text(key)
        return self.lost(name)

    def lost(self, name: str) -> str:
        """Return the name of a loss in words."""
        # Names of counters hold dots and slashes, so they are looked up as they are.
        return self._text.entry("field.lost", name) or name

    def mishap(self, mishap: doc.Mishap) -> str:
        """Return what happened."""
        return self._text(f"field.uptime.{mishap.kind}", count=mishap.count, name=mishap.name)

    def gauge(self, name: str) -> str:
        """Return the name of a gauge in words."""
        kind, _, sink = name.partition("/")
        if kind == "pending" and sink.isdecimal():
            # Sinks are counted from 0 in the order of the configuration.
            return self._text("field.load.pending", sink=int(sink) + 1)
        key = f"field.load.{'gauge_hosts' if name == 'hosts' else name}"
        return self._text(key) if name in _GAUGES else name

    def trend(self, process: doc.Process) -> str:
        """Return how the memory of a process moves."""
        growth = units.size(abs(process.growth_per_day or 0.0))
        return self._text(f"field.load.{process.trend}", growth=growth)

    def load(self) -> list[str]:
        """Return what load and memory come to."""
        text, load = self._text, self._document.load
        lines = []
        if load.cpu_mean is not None and load.cpu_peak is not None:
            lines.append(
                text(
                    "field.load.sum" if load.cores is None else "field.load.sum_cores",
                    mean=f"{load.cpu_mean:.2f}",
                    peak=f"{load.cpu_peak:.2f}",
                    cores=load.cores,
                )
            )
            busiest = max(load.processes, key=lambda process: process.cpu_peak or 0.0)
            if len(load.processes) > 1 and busiest.cpu_peak:
                peak = f"{busiest.cpu_peak:.2f}"
                lines.append(text("field.load.busiest", name=busiest.name, peak=peak))
        carried, loss = self._document.carried, self._document.loss
        if carried.peak_packets_per_s is not None:
            said = [text("field.load.packets", peak=units.number(carried.peak_packets_per_s))]
            if loss.mirrored:  # files wait until they are read
                kept_up = "not_kept_up" if loss.kernel_dropped else "kept_up"
                said.append(text(f"field.load.{kept_up}"))
            lines.append(" ".join(said))
        return lines + self._memory()

    def _memory(self) -> list[str]:
        text = self._text
        known = [one for one in self._document.load.processes if one.memory_last is not None]
        if not known:
            return []
        growing = [one.name for one in known if one.trend == "growing"]
        short = [one.name for one in known if one.trend == "short"]
        if growing:
            lines = [text("field.load.memory_growing", names=", ".join(growing))]
        elif len(short) == len(known):
            lines = [text("field.load.memory_short", least=seconds(MIN_TREND_S))]
        elif short:
            lines = [text("field.load.memory_flat_but", names=", ".join(short))]
        else:
            lines = [text("field.load.memory_flat")]
        if any(one.restarts for one in known):
            lines.append(text("field.load.memory_restarted"))
        return lines

    def drift(self) -> str:
        """Return what the gauge of drift means, and without one what it takes."""
        drift = self._document.drift
        if drift.most is None or drift.last is None:
            return self._text(
                "field.drift.needs",
                least=MIN_DRIFT_FLOWS,
                flows=drift.flows,
                so_far=seconds(self._document.uptime.covered_s),
            )
        worst = drift.most
        key = "usual" if worst < PSI_USUAL else "moved" if worst < PSI_OTHER else "other"
        intro = self._text("field.drift.intro", last=f"{drift.last:.3g}", most=f"{worst:.3g}")
        return f"{intro} {self._text(f'field.drift.{key}')}"

    def heights(self) -> str:
        """Return how high scores are, '' where no flow ended."""
        drift, text = self._document.drift, self._text
        if not drift.flows:
            return ""
        share = units.share(drift.high, drift.flows)
        said = text("field.drift.heights", share=share, count=drift.flows)
        if drift.flows >= MIN_DRIFT_FLOWS and 2 * drift.high > drift.flows:
            said += " " + text("field.drift.high")
        return said


_GAUGES: Final = frozenset({"live_flows", "hosts", "waiting_rows", "pending_events"})


def seconds(value: float | None) -> str:
    """Return a span of seconds with at most two units; a dash for None."""
    return "–" if value is None else units.duration(round(value * SECOND_NS))


def amount(value: float | None) -> str:
    """Return a small amount with the places that matter; a dash for None.

    Examples
    --------
    >>> amount(0.0), amount(0.034), amount(2.46), amount(1234.5)
    ('0', '0.034', '2.5', '1,234')
    """
    if value is None:
        return "–"
    if value >= 100:
        return units.number(value)
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"
