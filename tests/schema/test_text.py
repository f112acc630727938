"""Text of strangers: each function keeps what its readers can take, and nothing else."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from veilwatch.schema import text as t

# Half surrogates too: names on disk and on the wire come with them.
TEXTS = st.text(st.characters(), max_size=60)


@given(TEXTS)
def test_a_screen_gets_one_bounded_line_that_does_nothing(text: str) -> None:
    shown = t.visible(text, 20)
    assert len(shown) <= 20
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(TEXTS)
def test_a_log_gets_printable_characters_only(text: str) -> None:
    line = t.one_line(text)
    assert line.isprintable() and len(line) == len(text)
    assert all(a == b for a, b in zip(line, text, strict=True) if b.isprintable())


@given(TEXTS)
def test_ascii_is_bounded_and_printable(text: str) -> None:
    shown = t.ascii_escaped(text, 30)
    assert shown.isascii() and shown.isprintable() and len(shown) <= 30


@given(st.binary(max_size=40))
def test_any_file_s_name_can_be_shown(name: bytes) -> None:
    shown = t.file_name(name.decode("utf-8", "surrogateescape"))
    assert shown.isprintable()
    shown.encode()


@given(TEXTS)
def test_utf_8_can_write_what_is_encodable_and_whole_text_stays(text: str) -> None:
    written = t.encodable(text).encode().decode()
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert written == text


def test_halves_that_belong_together_are_one_character_again() -> None:
    assert t.encodable("a\ud83e\udd80b\udd80") == "a\U0001f980b\ufffd"


def test_names_that_look_like_another_are_shown_as_they_are() -> None:
    assert t.visible("invoice\u202efdp.exe") == "invoice\\u202efdp.exe"
    assert t.visible("病院.example") == "病院.example"
