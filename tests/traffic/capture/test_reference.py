"""Kernels against the plain-Python reader: any file, any cut, any damage."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.traffic.capture import build
from tests.traffic.capture.reference import read_reference

ORDERS = st.sampled_from("<>")
FRAMES = st.binary(max_size=40)
U32 = st.integers(0, 2**32 - 1)
TICKS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.integers(1_600_000_000_000_000, 1_700_000_000_000_000),
    st.sampled_from([0, 1, 2**63, 2**64 - 1, 2**62]),
)
OFFSETS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-5, 5))
RESOLUTIONS = st.one_of(st.none(), st.integers(0, 255), st.sampled_from([0, 6, 9, 0x80, 0xA0]))
WINDOWS = st.integers(64, 600)


@st.composite
def pcaps(draw: st.DrawFn) -> bytes:
    packets = draw(st.lists(st.tuples(U32, U32, FRAMES), max_size=8))
    return build.pcap(
        packets,
        order=draw(ORDERS),
        magic=draw(st.sampled_from([0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34])),
        network=draw(st.one_of(st.sampled_from([1, 113, 0x30000001, 0x10001]), U32)),
        version=draw(st.sampled_from([(2, 4), (2, 3), (2, 2), (1, 0)])),
    )


@st.composite
def sections(draw: st.DrawFn) -> bytes:
    order = draw(ORDERS)
    out = build.section(order, draw(st.sampled_from([b"", build.option(order, 1, b"hello")])))
    kinds = draw(st.lists(st.sampled_from("iiesox"), max_size=10))
    for kind in ["i", *kinds]:
        if kind == "i":
            link, snaplen = draw(st.integers(0, 65535)), draw(st.sampled_from([0, 8, 65535]))
            out += build.interface(order, link, snaplen, draw(RESOLUTIONS), draw(OFFSETS))
        elif kind == "e":
            options = draw(st.sampled_from([b"", build.option(order, 1, b"note")]))
            index = draw(st.integers(0, 2))
            out += build.enhanced(draw(TICKS), draw(FRAMES), order, index, options)
        elif kind == "o":
            out += build.obsolete(draw(TICKS), draw(FRAMES), order, draw(st.integers(0, 1)))
        elif kind == "s":
            frame = draw(FRAMES)
            out += build.simple(draw(st.sampled_from([len(frame), 8, 0])), frame, order)
        else:
            out += build.block(order, draw(st.integers(4, 2**31)), draw(st.binary(max_size=900)))
    return out


CAPTURES = st.one_of(pcaps(), st.lists(sections(), min_size=1, max_size=3).map(b"".join))


@dataclass(frozen=True)
class Damage:
    at: float
    value: bytes


DAMAGES = st.lists(
    st.builds(
        Damage,
        st.floats(0, 1),
        st.one_of(
            st.binary(min_size=1, max_size=4),
            st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\x10\0", b"\x0c\0\0\0"]),
        ),
    ),
    max_size=3,
)


def assert_agree(data: bytes, window_bytes: int) -> None:
    kernel, _ = build.read_bytes(data, window_bytes)
    assert kernel == read_reference(data)


@examples(400)
@given(CAPTURES, WINDOWS)
def test_whole_captures_are_read_alike(data: bytes, window_bytes: int) -> None:
    assert_agree(data, window_bytes)


@examples(60)
@given(CAPTURES, WINDOWS, st.data())
def test_captures_cut_anywhere_are_read_alike(
    data: bytes, window_bytes: int, draws: st.DataObject
) -> None:
    for _ in range(10):
        assert_agree(data[: draws.draw(st.integers(4, len(data)))], window_bytes)


@examples(600)
@given(CAPTURES, WINDOWS, DAMAGES)
def test_damaged_captures_are_read_alike(
    data: bytes, window_bytes: int, damages: list[Damage]
) -> None:
    changed = bytearray(data)
    for damage in damages:
        at = 4 + int(damage.at * max(len(data) - 8, 0)) // 4 * 4
        changed[at : at + len(damage.value)] = damage.value
    assert_agree(bytes(changed), window_bytes)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_every_cut_of_a_capture(form: str, order: str) -> None:
    if form == "pcap":
        data = build.pcap([(1, 2, b"abcd"), (3, 4, b""), (5, 6, b"x" * 70)], order=order)
    else:
        data = build.section(order) + build.interface(order, 113, 0, 9, 1)
        data += build.enhanced(5, b"abc", order) + build.block(order, 5, b"statistics of it")
        data += build.simple(3, b"def", order) + build.section(order) + build.interface(order)
    for end in range(4, len(data) + 1):
        assert_agree(data[:end], 64)
