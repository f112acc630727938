"""Write docs/features.md, flows.md and sensor-config.md from what the code itself uses.

Run `make docs` after a change; a test fails while the pages and the code differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import polars as pl
from polars.datatypes import DataTypeClass

from veilwatch.features import DEFAULT_SETS, FEATURE_SETS
from veilwatch.features.base import FeatureSet
from veilwatch.schema.features import FeatureSpec
from veilwatch.schema.flows import (
    HANDSHAKE_COLUMNS,
    IDENTITY_COLUMNS,
    MEASURE_COLUMNS,
    SEQUENCE_COLUMNS,
    Column,
)
from veilwatch.sensor.template import reference

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
        "Relative paths begin at the folder of the file. `init` leaves settings at their defaults",
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


PAGES: Final = {
    "features.md": features_page,
    "flows.md": flows_page,
    "sensor-config.md": sensor_config_page,
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
