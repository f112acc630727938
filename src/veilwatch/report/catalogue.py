"""The words of reports, one file for each language."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


class _Count(int):
    """A count that brings its noun: `{flows:flow|flows}` writes "1 flow" or "1,200 flows"."""

    def __format__(self, form: str) -> str:
        one, bar, other = form.partition("|")
        if not bar:
            return format(int(self), form or ",")
        return f"{int(self):,} {one if self == 1 else other}"


class Text:
    """Looks up sentences by dotted key and fills in their values.

    A sentence that depends on a number is a table with the forms `one` and `other`, chosen by
    the value `count`. Where it holds several numbers, each brings its own noun, in both forms:
    `{flows:flow|flows} of {hosts:host|hosts}`.
    """

    def __init__(self, language: str, words: dict[str, Any]) -> None:
        self.language = language
        self._words = words

    def __call__(self, key: str, /, **values: object) -> str:
        """Return the sentence of `key`.

        Raises
        ------
        KeyError
            If the catalogue does not have it.
        """
        found = self._find(key)
        if isinstance(found, dict):
            found = found["one"] if values.get("count") == 1 and "one" in found else found["other"]
        number = {k: _Count(v) if isinstance(v, int) else v for k, v in values.items()}
        return str(found).format(**number)

    def has(self, key: str) -> bool:
        """Whether the catalogue has a sentence of that key."""
        try:
            self._find(key)
        except KeyError:
            return False
        return True

    def entry(self, section: str, name: str) -> str:
        """Return the sentence under a name that may hold dots, '' where there is none."""
        found = self._find(section)
        return str(found.get(name, "")) if isinstance(found, dict) else ""

    def _find(self, key: str) -> Any:
        found: Any = self._words
        for name in key.split("."):
            if not isinstance(found, dict) or name not in found:
                raise KeyError(key)
            found = found[name]
        return found


@cache
def catalogue(language: str = "en") -> Text:
    """Return the words of one language (`report/text/<language>.toml`)."""
    source = files("veilwatch.report") / "text" / f"{language}.toml"
    return Text(language, tomllib.loads(source.read_text(encoding="utf-8")))
