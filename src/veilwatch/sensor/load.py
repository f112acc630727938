"""Reading a configuration: the file, over it the environment, over that the command line.

Every value remembers where it came from, and every fault names its place.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from veilwatch.errors import VeilwatchError
from veilwatch.sensor.config import BASE, SensorConfig, is_path
from veilwatch.sinks.address import shown_path

PREFIX: Final = "VEILWATCH_"
"""Environment variables that begin so and hold `__` are settings."""

MAX_BYTES: Final = 1 << 20
"""Longest file: it is written by hand."""

MASK: Final = "***"

_SECRET = re.compile(
    r"(?i)\b([\w-]*(?:password|passwd|pwd|secret|token|key|auth|sig|code|credential)[\w-]*)=([^&#\s]*)"
)
_WEB = re.compile(r"(?i)^((?:[a-z][a-z0-9.-]*\+)?https?://[^/?#]*)(/[^?#]*)")
_USERINFO = re.compile(r"(?i)^([a-z][a-z0-9+.-]*://)([^/?#]*)@")
_TABLE = re.compile(r"^\s*\[(\[)?\s*([\w.\s\"'-]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([\w-]+(?:\s*\.\s*[\w-]+)*)\s*=")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where its values came from.

    Attributes
    ----------
    config
        The values.
    sources
        By dotted name, for each value that is no default.
    """

    config: SensorConfig
    sources: Mapping[str, str] = field(default_factory=dict)


def load_config(
    path: Path | None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
) -> Loaded:
    """Read and check a configuration.

    Parameters
    ----------
    path
        The TOML file; None for defaults alone.
    environment
        Variables such as `VEILWATCH_CAPTURE__RING_MB=64`; they win over the file.
    overrides
        Such as `capture.ring_mb=64`; they win over everything.

    Relative paths of the file begin at its folder, so that it can be used from everywhere. Those of
    the environment and of the command line begin at the working directory, as a shell completes
    them.

    Raises
    ------
    VeilwatchError
        If the file cannot be read or is no TOML, a name is not known (the nearest one is
        proposed), or a value does not fit.
    """
    text = "" if path is None else _read(path)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise VeilwatchError(f"not TOML: {error}", where=path) from error
    lines = _lines(text)
    sources = {
        name: f"{path}:{lines[name]}" if name in lines else str(path) for name in _leaves(tree)
    }
    for name, value in _variables(environment or {}):
        variable = PREFIX + name.upper().replace(".", "__")
        _put(tree, name, value, variable)
        sources[name] = variable
    for override in overrides:
        name, equals, value = override.partition("=")
        name = name.strip()
        if not equals or not name:
            raise VeilwatchError(
                f"{override!r} sets nothing", where="--set", hint="write section.key=value"
            )
        _put(tree, name, value, f"--set {name}")
        sources[name] = "--set"
    base = path.absolute().parent if path else Path.cwd()
    try:
        config = SensorConfig.model_validate(tree, context={BASE: base})
    except ValidationError as error:
        raise _fault(error, path, lines, sources) from None
    return Loaded(config, sources)


def masked(text: str) -> str:
    """Return a URL without its secrets: the password, and parameters that are named like one.

    Of a path at a web server no more than a first plain word is left (`shown_path`): whoever knows
    all of it may write there.

    Examples
    --------
    >>> masked("https://u:p@h/x?token=abc&level=3"), masked("webhook+https://h/services/T0/B0")
    ('https://u:***@h/x?token=***&level=3', 'webhook+https://h/services/…')
    """
    found = _USERINFO.match(text)
    if found:
        user, colon, _ = found[2].partition(":")
        shown = f"{found[1]}{user}{colon and f':{MASK}'}@{text[found.end() :]}"
    else:
        shown = text
    if web := _WEB.match(shown):
        shown = f"{web[1]}{shown_path(web[2])}{shown[web.end() :]}"
    return _SECRET.sub(rf"\1={MASK}", shown)


def leaves(config: SensorConfig) -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values of every setting, in the order of the file."""
    for section, model in config:
        for key, value in model:
            yield f"{section}.{key}", value


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise VeilwatchError("too long for a configuration", where=path)
        return data.decode()
    except OSError as error:
        raise VeilwatchError(
            f"cannot read the configuration: {error.strerror or error}",
            where=path,
            hint="veilwatch config init writes one",
        ) from error
    except UnicodeDecodeError as error:
        raise VeilwatchError("not UTF-8 text", where=path) from error


def _lines(text: str) -> dict[str, int]:
    """Return the line of every key by its dotted name, as far as a plain look tells.

    A second table of an array counts as `name.1`, and so on, as pydantic names them.
    """
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            table = re.sub(r"[\s\"']", "", header[2])
            if header[1]:
                counts[table] = counts.get(table, -1) + 1
                found.setdefault(table, number)
                table = f"{table}.{counts[table]}"
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            name = re.sub(r"\s", "", key[1])
            found.setdefault(f"{table}.{name}" if table else name, number)
    return found


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in tree.items():
        name = f"{above}.{key}" if above else key
        if isinstance(value, dict):
            yield from _leaves(value, name)
        else:
            yield name


def _variables(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for variable, value in sorted(environment.items()):
        name = variable.removeprefix(PREFIX)
        # Others of ours, such as VEILWATCH_CORPUS, name no section.
        if variable.startswith(PREFIX) and "__" in name:
            yield name.lower().replace("__", "."), value


def _put(tree: dict[str, Any], name: str, text: str, where: str) -> None:
    """Set a dotted name; the value is TOML, or else a text."""
    *sections, key = name.split(".")
    at: Any = tree
    for section in sections:
        at = at.setdefault(section, {})
        if not isinstance(at, dict):
            raise VeilwatchError(f"{section} is no section", where=where)
    try:
        tree = tomllib.loads(f"x = {text}")
        value = tree["x"] if set(tree) == {"x"} else text
    except tomllib.TOMLDecodeError:
        value = text
    at[key] = _from_here(value) if is_path(_model(sections), key) else value


def _from_here(value: Any) -> Any:
    """Return a path that begins at the working directory; a URL and anything else as it is."""
    if not isinstance(value, str) or not value or "://" in value:
        return value
    return str(Path.cwd() / Path(value).expanduser())


def _fault(
    error: ValidationError,
    path: Path | None,
    lines: Mapping[str, int],
    sources: Mapping[str, str],
) -> VeilwatchError:
    """Return the first fault, unknown names before wrong values: they often cause those."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    first = faults[0]
    place = [str(part) for part in first["loc"]]
    name = ".".join(place)
    where = sources.get(name) or str(path or "configuration")
    # A key that is missing has no line: that of its section, or of its list, is near.
    for near in range(len(place), 0, -1):
        if where == str(path) and (line := lines.get(".".join(place[:near]))):
            where = f"{path}:{line}"
    more = f"; {len(faults) - 1} more" if len(faults) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known(place[:-1])
        alike = difflib.get_close_matches(place[-1].lower(), known, n=1, cutoff=0.5)
        hint = f"did you mean {alike[0]}?" if alike else f"known here: {', '.join(known)}"
        return VeilwatchError(f"unknown name {name[:100]}{more}", where=where, hint=hint)
    message = str(first["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return VeilwatchError(f"{name}: {message}{more}", where=where, hint=_meaning(place))


def _model(place: Sequence[str]) -> type[BaseModel] | None:
    """Return the model of the section at a place."""
    model: Any = SensorConfig
    for part in place:
        if part.isdecimal():
            continue
        found = model.model_fields.get(part)
        inner = [found.annotation] if found else []
        inner += getattr(inner[0], "__args__", ()) if inner else ()
        model = next((m for m in inner if isinstance(m, type) and issubclass(m, BaseModel)), None)
        if model is None:
            return None
    return model  # type: ignore[no-any-return]


def _known(place: Sequence[str]) -> list[str]:
    model = _model(place)
    return list(model.model_fields) if model else []


def _meaning(place: Sequence[str]) -> str:
    model = _model(place[:-1])
    found = model.model_fields.get(place[-1]) if model and place else None
    return " ".join((found.description or "").split()) if found else ""
