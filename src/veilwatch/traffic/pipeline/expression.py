"""A condition over the columns of a flow table: `dst_port IN (443, 8443) AND NOT tls_sni IS NULL`.

The language has columns, values, comparisons, sets, ranges, patterns, tests for null, AND, OR, NOT
and parentheses, and nothing else: no functions, no subqueries, nothing that could read a file or
open a connection. The grammar stands in docs/export.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Any, Final, NamedTuple, NoReturn

import polars as pl

from veilwatch.errors import VeilwatchError

MAX_CHARS: Final = 4096
"""Longest condition: some hundred addresses in a set, and a parser's work that nobody notices."""

MAX_DEPTH: Final = 32
"""Most parentheses and NOTs within each other: nobody writes more, and Python's stack holds it."""

MAX_VALUES: Final = 1024
"""Most values of all sets together: `MAX_CHARS` holds no more in practice."""

_KEYWORDS: Final = frozenset(
    (
        "AND",
        "OR",
        "NOT",
        "IN",
        "BETWEEN",
        "LIKE",
        "ILIKE",
        "CONTAINS",
        "IS",
        "NULL",
        "TRUE",
        "FALSE",
    )
)

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<number>-?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?))(?![\w.])
      | (?P<name>[A-Za-z_]\w*)
      | "(?P<quoted>[^"]*)"
      | '(?P<text>(?:[^']|'')*)'
      | (?P<sign><>|<=|>=|!=|==|[=<>(),])
    )""",
    re.X | re.A,
)

_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": eq,
    "==": eq,
    "<>": ne,
    "!=": ne,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}

_TURNED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
"""A comparison read from its other side."""

_END: Final = "the end"

Scalar = int | float | str | bool


class _Token(NamedTuple):
    kind: str  # number, name, column, text, sign, end
    value: str
    at: int


@dataclass(frozen=True, slots=True)
class _Value:
    """A value of the text."""

    value: Scalar
    at: int

    @property
    def kind(self) -> str:
        """What it may be compared with."""
        if isinstance(self.value, bool):
            return "truth value"
        return "text" if isinstance(self.value, str) else "number"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the flow table."""

    name: str
    dtype: Any
    expression: pl.Expr
    at: int

    @property
    def kind(self) -> str:
        """What it may be compared with."""
        return _kind(self.dtype)


def parse(text: str, columns: Mapping[str, tuple[Any, pl.Expr]]) -> pl.Expr:
    """Return the boolean expression that `text` stands for.

    Parameters
    ----------
    text
        At most `MAX_CHARS` characters.
    columns
        Type and expression of each column that it may name.

    Raises
    ------
    VeilwatchError
        If it is not of the language; it says at which character.

    Examples
    --------
    >>> parse("port = 1 OR port = 2", {"port": (pl.UInt16(), pl.col("port"))}).meta.root_names()
    ['port', 'port']
    """
    if len(text) > MAX_CHARS:
        raise VeilwatchError(
            f"longer than {MAX_CHARS:,} characters",
            where="--where",
            hint="shorten it, or filter the flow table of `veilwatch flows`",
        )
    return _Parser(text, columns).whole()


class _Parser:
    """Recursive descent, one method for each rule of the grammar."""

    def __init__(self, text: str, columns: Mapping[str, tuple[Any, pl.Expr]]) -> None:
        self._columns = columns
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0
        self._values = 0

    def whole(self) -> pl.Expr:
        """Condition, and nothing after it."""
        found = self._or()
        if self._token.kind != "end":
            self._fail("expected AND, OR or the end")
        return found

    def _or(self) -> pl.Expr:
        parts = [self._and()]
        while self._take("OR"):
            parts.append(self._and())
        return reduce(or_, parts)

    def _and(self) -> pl.Expr:
        parts = [self._not()]
        while self._take("AND"):
            parts.append(self._not())
        return reduce(and_, parts)

    def _not(self) -> pl.Expr:
        token = self._token
        if not (self._is("NOT") or self._is("(")):
            return self._test()
        if self._depth == MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} parentheses or NOTs within each other")
        self._depth += 1
        self._next += 1
        if token.value == "(":
            found = self._or()
            self._expect(")")
        else:
            found = ~self._not()
        self._depth -= 1
        return found

    def _test(self) -> pl.Expr:
        """A comparison, set, range, pattern, test for null, or a column of truth values."""
        left = self._operand()
        if self._token.kind == "sign" and self._token.value in _COMPARE:
            sign = self._token.value
            self._next += 1
            return self._compared(left, sign, self._operand())
        if isinstance(left, _Value):
            if left.kind == "truth value":
                return pl.lit(bool(left.value))
            self._fail("expected a comparison (=, <>, <, <=, >, >=)")
        if self._take("IS"):
            negated = self._take("NOT")
            self._expect("NULL")
            return left.expression.is_not_null() if negated else left.expression.is_null()
        negated = self._take("NOT")
        if self._take("IN"):
            found = self._set(left)
        elif self._take("BETWEEN"):
            low = self._value()
            self._expect("AND")
            found = self._compared(left, ">=", low) & self._compared(left, "<=", self._value())
        elif self._is("LIKE") or self._is("ILIKE") or self._is("CONTAINS"):
            found = self._pattern(left)
        elif negated:
            self._fail("expected IN, BETWEEN, LIKE, ILIKE or CONTAINS")
        elif left.kind == "truth value":
            found = left.expression
        else:
            self._fail(f"expected a comparison of {left.name}, such as {left.name} = …")
        return ~found if negated else found

    def _set(self, column: _Column) -> pl.Expr:
        self._expect("(")
        parts = [self._compared(column, "=", self._value())]
        while self._take(","):
            parts.append(self._compared(column, "=", self._value()))
        self._expect(")")
        # A balanced tree: Polars walks expressions by recursion.
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=False)
            rest = parts[-1:] if len(parts) % 2 else []
            parts = [a | b for a, b in pairs] + rest
        return parts[0]

    def _pattern(self, column: _Column) -> pl.Expr:
        word = self._token.value.upper()
        self._next += 1
        value = self._value()
        if word == "CONTAINS" and isinstance(column.dtype, pl.List):
            if value.kind != _kind(column.dtype.inner):
                self._mismatch(column, value)
            return column.expression.list.eval(
                _against(pl.element(), column.dtype.inner, "=", value.value)
            ).list.any()
        if column.kind != "text" or not isinstance(value.value, str):
            self._fail(f"{word} needs a column of text and a text in quotes", value.at)
        if word == "CONTAINS":
            return column.expression.str.contains(value.value, literal=True)
        return column.expression.str.contains(_like(value.value, word == "ILIKE"))

    def _compared(self, left: _Column | _Value, sign: str, right: _Column | _Value) -> pl.Expr:
        if isinstance(left, _Value):
            if isinstance(right, _Value):
                self._fail("compares two values, and no column", left.at)
            return self._compared(right, _TURNED.get(sign, sign), left)
        if left.kind not in ("number", "text", "truth value") or left.kind != right.kind:
            self._mismatch(left, right)
        if left.kind == "truth value" and sign in _TURNED:
            self._fail(f"{left.name} is true or false, and neither is more", left.at)
        if isinstance(right, _Column):
            compared: pl.Expr = _COMPARE[sign](left.expression, right.expression)
            return compared
        return _against(left.expression, left.dtype, sign, right.value)

    def _operand(self) -> _Column | _Value:
        token = self._token
        if token.kind == "column" or (token.kind == "name" and not _keyword(token)):
            self._next += 1
            return self._column(token)
        return self._value()

    def _column(self, token: _Token) -> _Column:
        found = self._columns.get(token.value) or self._columns.get(token.value.lower())
        if found is None:
            near = get_close_matches(token.value.lower(), self._columns, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            self._fail(f"no column {token.value[:40]!r}", token.at, f"{hint}columns: docs/flows.md")
        return _Column(token.value, found[0], found[1], token.at)

    def _value(self) -> _Value:
        token = self._token
        value: Scalar
        if token.kind == "text":
            value = token.value.replace("''", "'")
        elif token.kind == "number":
            value = self._number(token)
        elif token.kind == "name" and token.value.upper() in ("TRUE", "FALSE"):
            value = token.value.upper() == "TRUE"
        elif token.kind == "name" and token.value.upper() == "NULL":
            self._fail("a comparison with NULL is never true", hint="write IS NULL or IS NOT NULL")
        else:
            self._fail("expected a column, a number or a text in quotes")
        self._next += 1
        self._values += 1
        if self._values > MAX_VALUES:
            self._fail(f"more than {MAX_VALUES:,} values", token.at)
        return _Value(value, token.at)

    def _number(self, token: _Token) -> int | float:
        text = token.value
        if len(text) > 40:
            self._fail("a number of more than 40 characters", token.at)
        if re.fullmatch(r"-?\d+", text):
            return int(text)
        return int(text, 16) if "x" in text.lower() else float(text)

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _is(self, word: str) -> bool:
        token = self._token
        return token.kind in ("name", "sign") and token.value.upper() == word

    def _take(self, word: str) -> bool:
        found = self._is(word)
        self._next += found
        return found

    def _expect(self, word: str) -> None:
        if not self._take(word):
            self._fail(f"expected {word}")

    def _mismatch(self, column: _Column, other: _Column | _Value) -> NoReturn:
        known = column.kind if column.kind != "list" else "list of values"
        advice = {
            "list": f"write {column.name} CONTAINS …",
            "text": f"put the value in quotes: {column.name} = '…'",
            "number": f"give a number: {column.name} = 443",
        }
        self._fail(
            f"{column.name} is a {known} and cannot be compared with a {other.kind}",
            other.at,
            advice.get(column.kind, f"write {column.name} or NOT {column.name}"),
        )

    def _fail(
        self, what: str, at: int | None = None, hint: str = "grammar: docs/export.md"
    ) -> NoReturn:
        token = self._token
        at = token.at if at is None else at
        if what.startswith("expected"):
            seen = _END if token.kind == "end" else repr(token.value[:40])
            what = f"{what}, found {seen}"
        raise _error(what, at, hint)


def _error(what: str, at: int, hint: str) -> VeilwatchError:
    return VeilwatchError(what, where=f"--where, character {at + 1}", hint=hint)


def _keyword(token: _Token) -> bool:
    return token.value.upper() in _KEYWORDS


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    end = len(text.rstrip())
    at = 0
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            what = "a text without its closing quote" if text[at] in "'\"" else "not understood"
            raise _error(f"{what}: {text[at : at + 20]!r}", at, "grammar: docs/export.md")
        kind = match.lastgroup or ""
        value = match[kind]
        at = match.end()
        quotes = 2 if kind in ("text", "quoted") else 0
        start = at - len(value) - quotes
        found.append(_Token("column" if kind == "quoted" else kind, value, start))
    return [*found, _Token("end", "", end)]


def _kind(dtype: Any) -> str:
    """Return what values of a type may be compared with."""
    if dtype == pl.Boolean:
        return "truth value"
    if dtype == pl.String:
        return "text"
    return "number" if dtype.is_numeric() else "list"


def _against(
    expression: pl.Expr, dtype: Any, sign: str, value: int | float | str | bool
) -> pl.Expr:
    """Compare a column with a value, exactly: no integer is rounded to a float."""
    compared: pl.Expr
    if isinstance(value, int) and not isinstance(value, bool) and dtype.is_integer():
        low, high = _bounds(dtype)
        if not low <= value <= high:
            # Beyond what the column can hold: the same answer for every value that is known.
            answer = pl.lit(_COMPARE[sign](0, 1 if value > high else -1))
            return pl.when(expression.is_not_null()).then(answer)
        compared = _COMPARE[sign](expression, pl.lit(value, dtype=dtype))
        return compared
    if isinstance(value, int | float) and not isinstance(value, bool):
        compared = _COMPARE[sign](expression.cast(pl.Float64), pl.lit(float(value)))
        return compared
    compared = _COMPARE[sign](expression, pl.lit(value))
    return compared


def _bounds(dtype: Any) -> tuple[int, int]:
    bits = 8 * pl.Series([], dtype=dtype).to_numpy().dtype.itemsize
    if dtype.is_unsigned_integer():
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _like(pattern: str, any_case: bool) -> str:
    """Return the regular expression of a pattern with `%` and `_`."""
    body = "".join({"%": ".*", "_": "."}.get(char) or re.escape(char) for char in pattern)
    return f"(?s{'i' if any_case else ''})^(?:{body})$"
