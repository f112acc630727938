"""Names belong to nobody."""

from __future__ import annotations

from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.names import make_label, make_name


def test_names_are_under_example_and_fit_the_dns() -> None:
    names = [make_name(Draw(k), random_letters=k % 2 == 0) for k in range(200)]
    assert all(name.endswith(".example") for name in names)
    assert all(0 < len(label) <= 63 for name in names for label in name.split("."))
    assert len(set(names)) > 190


def test_random_letters_have_the_wanted_length() -> None:
    assert len(make_label(Draw(1), 40, random_letters=True)) == 40
