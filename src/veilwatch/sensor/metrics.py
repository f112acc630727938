"""Metrics for Prometheus, made of what the parent knows of its processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from veilwatch.schema import counters as known
from veilwatch.schema.counters import CounterSpec, Kind, Process, counted_by, kind_of

Status = dict[str, Any]

Children = Mapping[str, Mapping[str, Any]]


class SensorCollector:
    """Make metrics of what the parent knows of its children.

    Parameters
    ----------
    status
        Returns what is written to the status file.
    """

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they stand now."""
        status = self._status()
        children: Children = status.get("children", {})
        for spec in known.REGISTRY:
            if not spec.metric:
                continue
            family = _family(spec)
            for labels, value in _samples(spec, status, children):
                if value is not None:  # not known yet
                    family.add_metric([_label(label) for label in labels], float(value))
            yield family


def _family(spec: CounterSpec) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if spec.kind is Kind.COUNTER else GaugeMetricFamily
    if spec is known.SCORE:
        labels = ["from", "to"]
    elif spec.process is Process.PARENT:
        labels = []
    elif spec.process in (Process.SINK, Process.EACH):
        labels = [spec.label]
    else:
        labels = ["process", spec.label] if spec.label else ["process"]
    return kind(f"veilwatch_{spec.metric}", spec.help, labels=labels)


def _samples(
    spec: CounterSpec, status: Status, children: Children
) -> Iterator[tuple[list[str], Any]]:
    """Yield the values of one counter with their labels."""
    if spec.process is Process.PARENT:
        yield [], bool(status.get(spec.name))
    for child, said in children.items():
        if spec.process is Process.EACH:
            yield [child], said.get(spec.name, 0)
        elif spec.process is Process.SINK:
            for sink in said.get("sinks", ()):
                yield [sink["name"]], sink[spec.name]
        elif spec in counted_by(kind_of(child)):
            yield from _of_child(spec, child, said)


def _of_child(
    spec: CounterSpec, child: str, said: Mapping[str, Any]
) -> Iterator[tuple[list[str], Any]]:
    if spec is known.SCORE:
        for number, count in enumerate(said.get(spec.name, ())):
            yield [f"{number / 10:.1f}", f"{(number + 1) / 10:.1f}"], count
    elif spec.label:
        for entry, count in dict(said.get(spec.name, {})).items():
            yield [child, entry], count
    else:
        yield [child], said.get(spec.name, 0)


def _label(value: object) -> str:
    """Return a text that UTF-8 can say: one label that it cannot would cost all metrics."""
    return str(value).encode("utf-8", "replace").decode()
