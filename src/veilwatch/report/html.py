"""Reports as one HTML page each that needs nothing but itself.

A page holds no script at all, and its Content-Security-Policy allows one style sheet, by
hash, and nothing else: neither a name in the traffic nor a slip in a template can make a
browser load or run anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from veilwatch.report import units
from veilwatch.report.catalogue import Text


def page(template: str, text: Text, **values: Any) -> str:
    """Render one template with the style sheet and the words."""
    style = (files("veilwatch.report") / "templates" / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            text=text,
            units=units,
            style=Markup(style),  # noqa: S704 - our own file
            policy=f"default-src 'none'; style-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'",
            **values,
        )
    )


_BREAKS: Final = re.compile(r"(?<=[./_@?&=])(?=[^./_@?&=])")


_CODE: Final = re.compile(r"`([^`]+)`")


def soft(name: str) -> Markup:
    """Return a name, escaped, that may be broken behind its dots and slashes and keeps its words.

    Examples
    --------
    >>> soft("telemetry.example")
    Markup('telemetry.<wbr>example')
    """
    return Markup("<wbr>").join(_BREAKS.split(name))  # join escapes the parts


def code(sentence: str) -> Markup:
    """Return a sentence, escaped, with what stands between backticks as code.

    Examples
    --------
    >>> code("run `a & b`")
    Markup('run <code>a &amp; b</code>')
    """
    parts = _CODE.split(sentence)  # what it captures stands at odd places
    marked = (Markup("<code>{}</code>").format(part) for part in parts[1::2])
    parts[1::2] = marked
    return Markup("").join(parts)


def whole(sentence: str) -> str:
    """Return a sentence whose per cent signs stay beside their figures."""
    return sentence.replace(" %", "\u00a0%")


@cache  # it keeps the templates that it has compiled, which takes longer than a page does
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("veilwatch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["soft"] = soft
    environment.filters["whole"] = whole
    environment.filters["code"] = code
    return environment
