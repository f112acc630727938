"""The array of valid F-TEIDs against a dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from veilwatch.schema.sessions import SESSION_DTYPE
from veilwatch.traffic.subscriber.bindings import Bindings
from veilwatch.traffic.subscriber.messages import End

ends = st.builds(End, st.integers(0, 2**128 - 1), st.integers(0, 2**32 - 1))


@given(st.lists(ends, min_size=1, max_size=20, unique=True), st.data())
def test_rows_are_what_a_dictionary_holds(pool: list[End], data: st.DataObject) -> None:
    bindings = Bindings()
    wanted: dict[End, int] = {}
    for session in range(1, data.draw(st.integers(1, 60))):
        end, before = data.draw(st.sampled_from(pool)), bindings.version
        if end in wanted and data.draw(st.booleans()):
            bindings.remove(end)
            del wanted[end]
        else:
            bindings.put(end, session)
            wanted[end] = session
        assert bindings.version > before
        rows = bindings.rows()
        assert rows.dtype == SESSION_DTYPE and len(rows) == len(wanted)
        assert wanted == {
            End(int(r["address_hi"]) << 64 | int(r["address_lo"]), int(r["teid"])): int(
                r["session"]
            )
            for r in rows
        }


def test_the_array_grows() -> None:
    bindings = Bindings()
    for n in range(1000):
        bindings.put(End(n, n), n)
    rows = bindings.rows()
    assert len(rows) == 1000 and rows["session"].tolist() == list(range(1000))
    bindings.put(End(7, 7), 1)
    assert rows["session"][7] == 7  # what was handed out stays as it was
