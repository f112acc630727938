"""Pseudonyms: keyed, stable within a period, not linkable across periods; key files."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veilwatch.errors import VeilwatchError
from veilwatch.traffic.subscriber import KeyRing, Rotation, read_key_file

KEY = bytes(range(32))


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    return int(moment.timestamp()) * 10**9


@pytest.mark.parametrize(
    ("rotation", "first", "last", "beyond", "name"),
    [
        (Rotation.DAILY, (2026, 3, 9), (2026, 3, 9, 23, 59, 59), (2026, 3, 10), "2026-03-09"),
        (Rotation.WEEKLY, (2025, 12, 29), (2026, 1, 4, 23), (2026, 1, 5), "2026-W01"),
        (Rotation.MONTHLY, (2026, 2, 1), (2026, 2, 28, 23), (2026, 3, 1), "2026-02"),
    ],
)
def test_periods(
    rotation: Rotation,
    first: tuple[int, ...],
    last: tuple[int, ...],
    beyond: tuple[int, ...],
    name: str,
) -> None:
    ring = KeyRing(KEY, rotation)
    token = ring.token("imsi", b"001010123456789")
    assert ring.period(at(*first)) == name
    assert ring.pseudonym(token, at(*first)) == ring.pseudonym(token, at(*last))
    assert ring.pseudonym(token, at(*first)) != ring.pseudonym(token, at(*beyond))


def test_no_rotation_lasts() -> None:
    ring = KeyRing(KEY)
    token = ring.token("imsi", b"1")
    assert ring.pseudonym(token, at(1970, 1, 1)) == ring.pseudonym(token, at(2200, 1, 1))


def test_names_depend_on_key_kind_and_value() -> None:
    rings = [KeyRing(KEY), KeyRing(KEY[::-1]), KeyRing(), KeyRing()]
    found = {ring.pseudonym(ring.token("imsi", b"1"), 0) for ring in rings}
    ring = rings[0]
    found |= {ring.pseudonym(ring.token(*who), 0) for who in (("imei", b"1"), ("imsi", b"2"))}
    assert len(found) == 6
    assert all(len(name) == 18 and name.startswith("s-") for name in found)


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(Rotation))
def test_every_time_has_a_period(ts_ns: int, rotation: Rotation) -> None:
    assert KeyRing(KEY, rotation).period(ts_ns)


def test_short_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter than 32"):
        KeyRing(b"short")


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o600)
    assert read_key_file(path) == KEY
    path.chmod(0o400)
    assert read_key_file(path) == KEY
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(VeilwatchError, match="open to others"):
            read_key_file(path)
    path.chmod(0o600)
    for content in (KEY[:31], bytes(5000), b""):
        path.write_bytes(content)
        with pytest.raises(VeilwatchError, match="32 to 4096 bytes"):
            read_key_file(path)
    with pytest.raises(VeilwatchError, match="No such file"):
        read_key_file(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for other in ("pipe", "."):
        with pytest.raises(VeilwatchError, match="not a regular file"):
            read_key_file(tmp_path / other)
