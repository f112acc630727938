"""The language of `--where`: what it says, what it refuses, and that it can do nothing else."""

from __future__ import annotations

import re
import socket
import time
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from veilwatch.errors import VeilwatchError
from veilwatch.traffic.pipeline.expression import MAX_CHARS, MAX_DEPTH, parse
from veilwatch.traffic.pipeline.selection import Selection

FRAME: Final = pl.DataFrame(
    {
        "port": pl.Series([None, 0, 80, 443, 65535], dtype=pl.UInt16),
        "bytes": pl.Series([0, 1, 2**53 + 1, 2**64 - 1, None], dtype=pl.UInt64),
        "code": pl.Series([-1, 0, 1, 3, None], dtype=pl.Int8),
        "gap": pl.Series([0.5, -1.0, None, 1e9, 0.0], dtype=pl.Float32),
        "name": pl.Series(["", "a.example", "B'é%x", None, "a_example"], dtype=pl.String),
        "whole": pl.Series([True, False, None, True, False], dtype=pl.Boolean),
        "alpn": pl.Series([["h2"], [], None, ["h2", "h3"], ["x"]], dtype=pl.List(pl.String)),
    }
)
COLUMNS: Final = {name: (dtype, pl.col(name)) for name, dtype in FRAME.schema.items()}


def rows(text: str) -> list[int]:
    """Return the rows of which a condition holds."""
    return FRAME.with_row_index("row").filter(parse(text, COLUMNS))["row"].to_list()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("port = 443", [3]),
        ("PORT = 0x1bb", [3]),
        ('"port" = 443', [3]),
        ("443 = port", [3]),
        ("80 < port", [3, 4]),
        ("port <> 443", [1, 2, 4]),
        ("port != 443 and port >= 80", [2, 4]),
        ("port in (0, 443, 70000, -3)", [1, 3]),
        ("port NOT IN (0, 443)", [2, 4]),
        ("port BETWEEN 80 AND 443 OR port = 0", [1, 2, 3]),
        ("port NOT BETWEEN 80 AND 443", [1, 4]),
        ("port IS NULL", [0]),
        ("NOT port IS NULL", [1, 2, 3, 4]),
        ("port IS NOT NULL AND (port < 80 OR NOT port < 443)", [1, 3, 4]),
        ("port < 70000", [1, 2, 3, 4]),
        ("port > -1 AND port < 1.5", [1]),
        ("bytes = 9007199254740993", [2]),
        ("bytes = 9007199254740992", []),
        ("bytes = 18446744073709551615", [3]),
        ("bytes < 18446744073709551616", [0, 1, 2, 3]),
        ("code = -1", [0]),
        ("gap > 0.4 AND gap < 1e3", [0]),
        ("bytes > port", [1, 2, 3]),
        ("name = ''", [0]),
        ("name LIKE 'a%'", [1, 4]),
        ("name LIKE 'a_example'", [1, 4]),
        ("name LIKE 'b%'", []),
        ("name ILIKE 'b%x'", [2]),
        ("name = 'B''é%x'", [2]),
        ("name CONTAINS '.'", [1]),
        ("name NOT CONTAINS '.'", [0, 2, 4]),
        ("name IN ('', 'a.example')", [0, 1]),
        ("alpn CONTAINS 'h2'", [0, 3]),
        ("NOT alpn CONTAINS 'h2'", [1, 4]),
        ("alpn IS NULL", [2]),
        ("whole", [0, 3]),
        ("NOT whole", [1, 4]),
        ("whole = false", [1, 4]),
        ("true", [0, 1, 2, 3, 4]),
        ("  ( ( port=80 ) )  ", [2]),
    ],
)
def test_what_a_condition_says(text: str, expected: list[int]) -> None:
    assert rows(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prt = 443", "character 1: no column 'prt' (did you mean port?"),
        ("port = 80 OR nmae = ''", "character 14: no column 'nmae' (did you mean name?"),
        ("port = 'x'", "character 8: port is a number and cannot be compared with a text"),
        ("name = 3", "put the value in quotes: name = '…'"),
        ("whole > true", "true or false"),
        ("alpn = 'h2'", "write alpn CONTAINS …"),
        ("alpn CONTAINS 3", "cannot be compared with a number"),
        ("port CONTAINS 'x'", "needs a column of text"),
        ("port", "expected a comparison of port"),
        ("port =", "found the end"),
        ("port = 1 port = 2", "character 10: expected AND, OR or the end, found 'port'"),
        ("port = 1)", "found ')'"),
        ("(port = 1", "expected ), found the end"),
        ("port IN ()", "expected a column, a number or a text"),
        ("port IN (port)", "expected a column, a number or a text"),
        ("port BETWEEN 1", "expected AND"),
        ("port = NULL", "write IS NULL"),
        ("1 = 1", "compares two values"),
        ("name = 'x", "character 8: a text without its closing quote"),
        ("port = 12abc", "not understood"),
        ("", "expected a column"),
        ("port = 1; drop", "not understood"),
        ("port = 1 -- x", "not understood"),
        ("abs(port) = 1", "no column 'abs'"),
        ("port = (SELECT 1)", "expected a column, a number"),
        ("port IN (SELECT port FROM x)", "expected a column, a number"),
        ("EXISTS (SELECT a FROM read_csv('http://198.51.100.1/x'))", "no column 'EXISTS'"),
        ("read_csv('http://198.51.100.1/x')", "no column 'read_csv'"),
        ("port = 1 UNION SELECT 1", "expected AND, OR or the end"),
        ("port = " + "1" * 300, "more than 40 characters"),
        ("x" * (MAX_CHARS + 1), "longer than 4,096 characters"),
        ("(" * (MAX_DEPTH + 1) + "port = 1" + ")" * (MAX_DEPTH + 1), "within each other"),
        ("NOT " * (MAX_DEPTH + 1) + "whole", "within each other"),
    ],
)
def test_what_is_refused_and_where(text: str, words: str) -> None:
    with pytest.raises(VeilwatchError) as error:
        parse(text, COLUMNS)
    said = str(error.value)
    assert words in said and said.startswith("--where") and len(said) < 300, said


def test_nothing_of_it_opens_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: Any, **__: Any) -> None:
        raise AssertionError("a condition opened a socket")

    monkeypatch.setattr(socket, "socket", no_socket)
    monkeypatch.setattr(socket, "getaddrinfo", no_socket)
    for text in (
        "dst_port IN (SELECT a FROM read_csv('http://198.51.100.1/a.csv'))",
        "EXISTS (SELECT 1 FROM read_parquet('s3://bucket/a.parquet'))",
        "dst_port = (SELECT max(x) FROM read_json('https://198.51.100.1/'))",
    ):
        with pytest.raises(VeilwatchError):
            Selection(where=text)


def test_the_longest_condition_is_read_and_computed_at_once() -> None:
    texts = ["port IN (" + ",".join(["7"] * 1000) + ")"]
    texts += [" OR ".join(["port = 1"] * 340), "NOT " * MAX_DEPTH + "whole"]
    texts += ["name LIKE '" + "%a" * 1500 + "'", "name LIKE '" + "_" * 4000 + "'"]
    for text in texts:
        begun = time.monotonic()
        assert len(text) <= MAX_CHARS
        rows(text)
        assert time.monotonic() - begun < 5


WORDS = st.sampled_from(
    [
        *("port", "bytes", "name", "whole", "alpn", "gap", "code", "nothing", "AND", "OR", "NOT"),
        *("IN", "BETWEEN", "LIKE", "ILIKE", "CONTAINS", "IS", "NULL", "TRUE", "FALSE", "SELECT"),
        *("(", ")", ",", "=", "<>", "<", ">=", "!", ";", "--", "'", '"', "'a'", "'%'", "*", "+"),
        *("1", "-1", "0x10", "1.5", "1e400", "99999999999999999999999", "é", "\0", "\n", "1_0"),
    ]
)


@examples(300)
@given(st.one_of(st.lists(WORDS, max_size=14).map(" ".join), st.text(max_size=60)))
def test_whatever_is_written_is_a_condition_or_one_line(text: str) -> None:
    try:
        found = rows(text)
    except VeilwatchError as error:
        assert "\n" not in str(error)
        assert re.match(r"--where(, character \d+)?: ", str(error))
    else:
        assert set(found) <= set(range(FRAME.height))


Truth = bool | None


def _and(a: Truth, b: Truth) -> Truth:
    return False if a is False or b is False else None if a is None or b is None else True


def _not(a: Truth) -> Truth:
    return None if a is None else not a


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> tuple[str, Any]:
    """A condition and what it says of a row, in three-valued logic."""
    kind = draw(st.sampled_from(("=", "<", "in", "between", "null", "and", "or", "not")))
    if depth and kind in ("and", "or"):
        (a, f), (b, g) = draw(conditions(depth - 1)), draw(conditions(depth - 1))
        if kind == "and":
            return f"({a}) AND ({b})", lambda row: _and(f(row), g(row))
        return f"({a}) or ({b})", lambda row: _not(_and(_not(f(row)), _not(g(row))))
    if depth and kind == "not":
        a, f = draw(conditions(depth - 1))
        return f"NOT ({a})", lambda row: _not(f(row))
    name = draw(st.sampled_from(("port", "bytes", "code")))
    value = draw(
        st.sampled_from((-129, -1, 0, 1, 3, 80, 443, 65536, 2**53, 2**53 + 1, 2**64 - 1, 2**64))
    )
    other = draw(st.sampled_from((-1, 2, 443, 2**63)))

    def of(row: dict[str, Any], test: Any) -> Truth:
        return None if row[name] is None else bool(test(row[name]))

    if kind == "null":
        return f"{name} is null", lambda row: row[name] is None
    if kind == "in":
        return f"{name} in ({value}, {other})", lambda row: of(row, lambda x: x in (value, other))
    if kind == "between":
        return (
            f"{name} between {value} and {other}",
            lambda row: of(row, lambda x: value <= x <= other),
        )
    if kind == "<":
        return f"{name} < {value}", lambda row: of(row, lambda x: x < value)
    return f"{name} = {value}", lambda row: of(row, lambda x: x == value)


@examples(150)
@given(conditions())
def test_conditions_agree_with_plain_python(condition: tuple[str, Any]) -> None:
    text, holds = condition
    expected = [k for k, row in enumerate(FRAME.iter_rows(named=True)) if holds(row) is True]
    assert rows(text) == expected
