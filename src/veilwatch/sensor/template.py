"""Configurations as text: the file that people begin with, and the reference page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, time
from enum import Enum
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from veilwatch.sensor.config import EXAMPLES, AlertsSection, MaintenanceSection, SensorConfig

_HEAD: Final = """\
# Configuration of a Veilwatch sensor.
# Lines that begin with "#" and hold a setting show its default: remove the "#" to change it.
# Relative paths begin at the folder of this file. Check it with: veilwatch config check FILE
"""

_WIDTH: Final = 96


def template() -> str:
    """Return a commented file with every setting; what must be chosen is filled with examples."""
    lines = [_HEAD.rstrip()]
    for section, info in SensorConfig.model_fields.items():
        model = info.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        lines += ["", *_comment(model.__doc__ or ""), f"[{section}]"]
        for key, item in model.model_fields.items():
            if _is_array_of_tables(item):
                continue
            example = EXAMPLES.get(f"{section}.{key}")
            lines += ["", *_comment(item.description or "")]
            if example is not None:
                lines.append(f"{key} = {toml(example)}")
            else:
                default = item.get_default()
                shown = "…" if default is None else toml(default)
                lines.append(f"# {key} = {shown}".replace(" …", ""))
        if model is AlertsSection:
            lines += ["", *_comment(MaintenanceSection.__doc__ or "")]
            lines += ["# [[alerts.maintenance]]", '# reason = "patch day"', "# ends = 2030-12-31"]
            lines += ['# hosts = ["10.20.0.0/16"]', '# hours = "22:00-04:00"', '# days = ["sat"]']
    return "\n".join(lines) + "\n"


def reference() -> Iterator[tuple[str, str, list[tuple[str, str, str, str]]]]:
    """Yield each section with what it is for and its rows: key, type, default, meaning."""
    for section, info in SensorConfig.model_fields.items():
        model = info.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        yield f"[{section}]", _flat(model.__doc__ or ""), _rows(model)
        if model is AlertsSection:
            doc = _flat(MaintenanceSection.__doc__ or "")
            yield "[[alerts.maintenance]]", doc, _rows(MaintenanceSection)


def toml(value: Any) -> str:
    """Return a value as TOML.

    Examples
    --------
    >>> toml(["a", 1.5, True])
    '["a", 1.5, true]'
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return toml(value.value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, BaseModel):
        inner = ", ".join(f"{key} = {toml(v)}" for key, v in value if v is not None)
        return f"{{{inner}}}"
    text = str(value) if isinstance(value, Path | str) else repr(value)
    # JSON's escapes are TOML's; DEL is the one character that only TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _rows(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    schema = model.model_json_schema()
    rows = []
    for key, item in model.model_fields.items():
        told = schema["properties"][key]
        default = item.get_default()
        if item.is_required():
            shown = "*must be given*"
        elif default is None:
            shown = ""
        elif isinstance(default, datetime):
            shown = f"`{default:%Y-%m-%d}`"
        else:
            shown = f"`{toml(default)}`"
        rows.append(
            (f"`{key}`", _type(told, schema.get("$defs", {})), shown, _flat(item.description or ""))
        )
    return rows


_TYPES: Final = {"string": "text", "integer": "whole number", "number": "number"}
_PLURAL: Final = {"text": "texts", "whole number": "whole numbers", "number": "numbers"}
_FORMATS: Final = {"path": "path", "date-time": "date or time"}


def _type(told: dict[str, Any], parts: dict[str, Any]) -> str:
    """Return a JSON schema's type in words, with its bounds."""
    if "$ref" in told:
        return _type(parts[told["$ref"].rpartition("/")[2]], parts)
    if "anyOf" in told:
        return next(_type(part, parts) for part in told["anyOf"] if part.get("type") != "null")
    if "enum" in told:
        return ", ".join(f"`{value}`" for value in told["enum"])
    kind = told.get("type", "")
    if kind == "array":
        words, comma, bounds = _type(told["items"], parts).partition(",")
        return f"list of {_PLURAL.get(words, words)}{comma}{bounds}"
    if kind == "boolean":
        return "`true` or `false`"
    if kind == "object":
        return "tables"
    words = _FORMATS.get(told.get("format", ""), _TYPES.get(kind, kind))
    low, above = told.get("minimum"), told.get("exclusiveMinimum")
    high = told.get("maximum")
    if above is not None and (low is None or above >= low):
        words += f", above {above:g}"
        return words if high is None else f"{words} to {high:,.15g}"
    if low is not None and high is not None:
        return f"{words}, {low:,.15g} to {high:,.15g}"
    return words if low is None else f"{words}, at least {low:,.15g}"


def _is_array_of_tables(item: FieldInfo) -> bool:
    inner = getattr(item.annotation, "__args__", ())
    return any(isinstance(part, type) and issubclass(part, BaseModel) for part in inner)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _comment(text: str) -> list[str]:
    lines, line = [], "#"
    for word in text.split():
        if len(line) + len(word) >= _WIDTH:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line]
