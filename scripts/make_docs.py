"""Write the pages, or the parts of pages, that follow from registries which the code itself uses.

Run `make docs` after a change; a test fails while the pages and the code differ.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
from polars.datatypes import DataTypeClass

from veilwatch.learning.features import DEFAULT_SETS, FEATURE_SETS
from veilwatch.learning.features.base import FeatureSet
from veilwatch.schema.alerts import Alert, Tunnel
from veilwatch.schema.counters import FAULTS, CounterSpec, Kind, Process, counted_by
from veilwatch.schema.events import Event, EventKind
from veilwatch.schema.features import FeatureSpec
from veilwatch.schema.flow_facts import FlowFacts
from veilwatch.schema.flows import (
    HANDSHAKE_COLUMNS,
    IDENTITY_COLUMNS,
    MEASURE_COLUMNS,
    SEQUENCE_COLUMNS,
    Column,
)
from veilwatch.schema.scores import Reason
from veilwatch.sensor.template import reference
from veilwatch.sinks import esm_elastic, eve
from veilwatch.sinks.base import SCHEMES, sink_class
from veilwatch.sinks.cef import cef
from veilwatch.sinks.check import event_of_test

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"

NOTICE: Final = (
    "<!-- Written by scripts/make_docs.py. Change the registry, then run `make docs`. -->"
)


def features_page() -> str:
    """Return docs/features.md: every feature of every set."""
    lines = [
        "# Features",
        "",
        NOTICE,
        "",
        "What a detector sees of a flow, of five minutes of a host, or of a capture. A value is",
        "missing (NaN) where a feature does not apply.",
        "A *shortcut* tells the place or the system rather than the threat (ports, TTL, windows,",
        "lengths of bare packets …): it is left out of training unless `--shortcuts` asks for it,",
        "and then only to show what it would add. A model is bound to the names and order of its",
        "features by a hash.",
        "",
        f"Sets in use by default: {', '.join(f'`{name}`' for name in DEFAULT_SETS)}.",
    ]
    for item in FEATURE_SETS.values():
        lines += ["", *_feature_set(item)]
    return "\n".join(lines) + "\n"


def _feature_set(item: FeatureSet) -> list[str]:
    shortcuts = sum(feature.spec.shortcut for feature in item.features)
    return [
        f"## `{item.name}`, version {item.version}",
        "",
        f"{item.doc}. {len(item.features)} features of a {item.unit.replace('_', ' ')}, "
        f"{shortcuts} of them shortcuts.",
        "",
        *_table(
            ("feature", "unit", "what it measures", "shortcut"),
            (
                (
                    named(specs),
                    specs[0].unit,
                    specs[0].doc + (" …" if len(specs) > 1 else ""),
                    "yes" if specs[0].shortcut else "",
                )
                for specs in runs(item)
            ),
        ),
    ]


def runs(item: FeatureSet) -> list[list[FeatureSpec]]:
    """Return the features of a set, those that only a number tells apart together."""
    out: dict[tuple[str, bool], list[FeatureSpec]] = defaultdict(list)
    for spec in (feature.spec for feature in item.features):
        base, _, number = spec.name.rpartition("_")
        numbered = number.isdecimal()
        out[(base if numbered else spec.name, numbered)].append(spec)
    return list(out.values())


def named(specs: Sequence[FeatureSpec]) -> str:
    """Return the names of a run of features: the first and the last."""
    first, last = f"`{specs[0].name}`", f"`{specs[-1].name}`"
    return first if len(specs) == 1 else f"{first} … {last}"


def flows_page() -> str:
    """Return docs/flows.md: every column of a flow table."""
    lines = [
        "# Flow tables",
        "",
        NOTICE,
        "",
        "`veilwatch flows CAPTURE… -o FILE` writes one row a flow with these columns, as Parquet,",
        "CSV or JSON lines. `fwd` runs from the initiator to the responder, `bwd` back. Sizes come",
        "from the innermost IP length, so that tunnels, padding and truncation do not change them.",
        "Null and NaN mean that a value does not apply. CSV holds the items of a list separated by",
        "spaces.",
        "",
        "Names of servers and protocols are ASCII: space, backslash and all other bytes are",
        "`\\DDD`, in decimal. What strangers write is bounded where it is parsed, and what was",
        "cut ends with `\\...`, as nothing does that is whole: server names beyond 255 bytes (no",
        "host name is longer), names of protocols beyond 64, common names beyond 256 characters.",
        "Of more than 16 protocols the last item is `\\...`; lists of numbers end after 512.",
        "Fingerprints are made of everything.",
    ]
    for title, columns in (
        ("Identity", IDENTITY_COLUMNS),
        ("Measures", MEASURE_COLUMNS),
        ("First packets", SEQUENCE_COLUMNS),
        ("Handshake", HANDSHAKE_COLUMNS),
    ):
        lines += ["", f"## {title}", "", *_columns(columns)]
    return "\n".join(lines) + "\n"


def _columns(columns: Iterable[Column]) -> list[str]:
    return _table(
        ("column", "type", "unit", "what it holds"),
        ((f"`{c.name}`", type_name(c.dtype), c.unit, c.doc) for c in columns),
    )


def type_name(dtype: pl.DataType | DataTypeClass) -> str:
    """Return a type in short words: `u16`, `i64`, `list of u16`.

    Examples
    --------
    >>> type_name(pl.List(pl.UInt16)), type_name(pl.Boolean)
    ('list of u16', 'bool')
    """
    base = dtype.base_type()
    if base == pl.Array:
        return "array"
    if isinstance(dtype, pl.List):
        return f"list of {type_name(dtype.inner)}"
    name = str(base())
    for long, short in (("UInt", "u"), ("Int", "i"), ("Float", "f")):
        name = name.replace(long, short)
    return name.lower().replace("boolean", "bool")


def sensor_config_page() -> str:
    """Return docs/sensor-config.md: every setting of a sensor."""
    lines = [
        "# Configuration of a sensor",
        "",
        NOTICE,
        "",
        "A sensor reads one TOML file. `veilwatch config init` writes one with every setting and",
        "what it means, `veilwatch config check` says what is wrong with one, and",
        "`veilwatch config show` prints what holds and where each value came from.",
        "",
        "```sh",
        "veilwatch config init sensor.toml",
        "veilwatch config check sensor.toml",
        "VEILWATCH_LOG__LEVEL=debug veilwatch config show sensor.toml --set capture.ring_mb=256",
        "```",
        "",
        "An environment variable `VEILWATCH_SECTION__KEY` wins over the file, and",
        "`--set section.key=value` over both. Their values are TOML, or else text. A name that is",
        "not known is an error, and so is a value out of its bounds; the message names the line.",
        "Relative paths in the file begin at its folder, those of variables and `--set` at the",
        "working directory. `init` leaves settings at their defaults",
        "as comments, so that a later release may change a default.",
    ]
    for title, doc, rows in reference():
        table = _table(("key", "value", "default", "what it means"), rows)
        lines += ["", f"## `{title}`", "", doc, "", *table]
    lines += ["", *ALLOW_LIST]
    return "\n".join(lines) + "\n"


ALLOW_LIST: Final = (
    "## The allow-list",
    "",
    "`alerts.allow_file` names a TOML file of what is known to be harmless here. All criteria of",
    "an entry must hold, one of several values in a criterion suffices. Every entry has a reason",
    "and an end (a date counts to its end, UTC): from then on it does not match any more, and",
    "`veilwatch config check` reports it.",
    "",
    "```toml",
    "[[allow]]",
    'reason = "backup to the second site"',
    "until = 2030-12-31",
    'host = "10.20.0.0/16"           # address or network of the host, or a list',
    'destination = "203.0.113.0/24"  # address or network of the server',
    'name = ".backup.example"        # server name; with a leading dot all names below it too',
    'port = [443, "8000-8100"]       # port of the server',
    "```",
    "",
    "Further criteria: `subscriber` (pseudonym), `ja3`, `ja4`. A server name is what the client",
    "claims: name the destination's network as well where you can. Entries that speak of a",
    "destination, name, fingerprint or port allow single flows; the alert of a host as a whole is",
    "allowed by `host` or `subscriber` alone. At most 1,000 entries.",
)
"""What the file holds that `alerts.allow_file` names."""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows),
    ]


def sinks_page() -> str:
    """Return docs/sinks.md with its tables."""
    rows = []
    for name, scheme in SCHEMES.items():
        parameters = sink_class(name).PARAMETERS
        told = "; ".join(f"`{parameter}`: {what}" for parameter, what in parameters.items())
        rows.append((f"`{scheme.example}`", scheme.what, told))
    return _filled(
        "sinks.md",
        {
            "schemes": _table(("URL", "what", "parameters after `?`"), rows),
            "cef": ["```text", cef(_example()).decode(), "```"],
        },
    )


def esm_page() -> str:
    """Return docs/secbuzzer-esm.md with its examples."""
    test = event_of_test(_EXAMPLE_NS, "edge-1")
    test = Event("0" * 32, test.kind, test.made_ns, test.alert, sensor=test.sensor)
    signatures = [
        (str(number), f"`{text}`", kind) for (kind, _), (number, text) in eve.SIGNATURES.items()
    ]
    return _filled(
        "secbuzzer-esm.md",
        {
            "signatures": _table(("signature_id", "signature", "event"), sorted(signatures)),
            "line": _json(json.loads(eve.event_text(_example(), zone=eve.TAIPEI))),
            "document": _json(esm_elastic.document(_example())),
            "test": _json(json.loads(eve.event_text(test, zone=eve.TAIPEI))),
        },
    )


def counters_page() -> str:
    """Return docs/counters.md: every counter of a sensor."""
    lines = [
        "# Counters of a sensor",
        "",
        NOTICE,
        "",
        "What the processes of a sensor count. The state folder has it in `status.json`. A metric",
        "is what Prometheus reads ([operations](operations.md#9-prometheus)); the store has some",
        "by minute, for the [field report](field-report.md). A *counter* grows from 0 with each",
        "start of its process, a *gauge* is the value at the time it is read, and what is of a",
        "*minute* is of the last whole one. `{…}` stands for the entries of a table;",
        f"`{FAULTS.prefix}store` is stored as `{FAULTS.entry('store')}`.",
    ]
    for process, title in _PROCESSES.items():
        lines += ["", f"## {title}", "", "| status | is | unit | metric | in the store |"]
        lines += ["|---|---|---|---|---|"]
        lines += [_counter_row(spec) for spec in counted_by(process)]
    return "\n".join(lines) + "\n"


_PROCESSES: Final = {
    Process.INGEST: "Capturing (`ingest`, one for each interface or worker)",
    Process.JUDGE: "Scoring (`judge`)",
    Process.DELIVER: "Delivering (`deliver`)",
    Process.SINK: "Each sink",
    Process.EACH: "Each process",
    Process.PARENT: "The sensor as a whole",
}


def _counter_row(spec: CounterSpec) -> str:
    entries = f"/{{{spec.label}}}" if spec.label else ""
    total = "_total" if spec.kind is Kind.COUNTER else ""
    metric = f"`veilwatch_{spec.metric}{total}`" if spec.metric else ""
    stored = f"`{spec.key}{entries}`" if spec.key else ""
    what = f"{spec.kind}: {spec.help}"
    return f"| `{spec.name}{entries}` | {what} | {spec.unit} | {metric} | {stored} |"


def _filled(name: str, parts: Mapping[str, Sequence[str]]) -> str:
    """Return a page with what stands between its marks written anew."""
    text = (DOCS / name).read_text(encoding="utf-8")
    for part, lines in parts.items():
        begin, end = f"<!-- {part}: by `make docs` -->", f"<!-- end of {part} -->"
        body = "\n".join((begin, *lines, end))
        pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
        text, count = re.subn(pattern, body.replace("\\", r"\\"), text, flags=re.S)
        assert count == 1, f"{name} has no place for {part}"
    return text


def _json(document: Any) -> list[str]:
    return ["```json", json.dumps(document, indent=2, ensure_ascii=False), "```"]


_EXAMPLE_NS: Final = 1_780_303_200_000_000_000


def _example() -> Event:
    """Return an alert of a flow in a GTP-U tunnel; names and addresses are those of examples."""
    alert = Alert(
        kind="flow",
        flow_id=4711,
        first_ns=_EXAMPLE_NS - 95_000_000_000,
        last_ns=_EXAMPLE_NS,
        src_ip="10.45.0.7",
        src_port=49_822,
        dst_ip="203.0.113.9",
        dst_port=8447,
        protocol=6,
        host="10.45.0.7",
        score=0.9971,
        threshold=0.62,
        severity=1,
        subscriber="sub-9e3779b1",
        application="telemetry-sync.example",
        service="tls",
        reasons=(
            Reason("pause_mean", 30.2, 2.3, "mean pause 30.2 s (usual benign range 1.2–9.8 s)"),
        ),
        tunnel=Tunnel("192.0.2.10", "192.0.2.100", 4097, 36_865, 9, 1),
    )
    flow = FlowFacts(
        alert.flow_id,
        first_ns=alert.first_ns,
        dst_port=alert.dst_port,
        service=alert.service,
        fwd_packets=41,
        bwd_packets=38,
        fwd_bytes=9_204,
        bwd_bytes=14_876,
        fwd_payload_bytes=7_010,
        bwd_payload_bytes=12_840,
        tls_sni=alert.application,
        tls_version=0x0303,
        ja3="e7d705a3286e19ea42f587b344ee6865",
        ja4="t12d1909h1_d83cc789557e_7af1ed941c26",
    )
    return Event(
        "5f1d7c0e9a3b4d6682c4f0a1b2c3d4e5",
        EventKind.FLOW,
        _EXAMPLE_NS + 800_000_000,
        alert,
        flow,
        sensor="edge-1",
        interface="mirror0",
    )


PAGES: Final = {
    "counters.md": counters_page,
    "features.md": features_page,
    "flows.md": flows_page,
    "sensor-config.md": sensor_config_page,
    "sinks.md": sinks_page,
    "secbuzzer-esm.md": esm_page,
}
"""Pages by file name within docs/."""


def main() -> None:
    """Write the pages that changed."""
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
