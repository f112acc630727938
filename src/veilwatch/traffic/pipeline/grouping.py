"""Which file the packets of each flow belong in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.errors import VeilwatchError
from veilwatch.schema.forms import teid_text
from veilwatch.schema.text import ascii_escaped
from veilwatch.traffic.pipeline.selection import UNKNOWN_SERVICE, Selection

UNWANTED: Final = -1
"""Group of a flow that was not selected."""

MAX_NAME: Final = 80
"""Characters of a file's name that come from the capture; file systems take 255 bytes, and a
counter, a time and a suffix follow."""

MAX_VALUE: Final = 300
"""Characters of a value from the capture that a comment shows: a server name has at most 253."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


class GroupBy(StrEnum):
    """What has a file of its own."""

    FLOW = "flow"
    HOST = "host"
    SUBSCRIBER = "subscriber"
    APPLICATION = "application"
    SERVER_NAME = "server-name"
    ALL = "all"


COLUMNS: Final = {
    GroupBy.FLOW: "parent_id",  # a connection that the active timeout cut is one file
    GroupBy.HOST: "src_ip",  # whose flow it is: the initiator's
    GroupBy.SUBSCRIBER: "subscriber",
    GroupBy.APPLICATION: "service",
    GroupBy.SERVER_NAME: "tls_sni",
}
"""Column of the flow table whose values part the flows."""

_EMPTY: Final = {
    GroupBy.SUBSCRIBER: "unattributed",
    GroupBy.APPLICATION: UNKNOWN_SERVICE,
    GroupBy.SERVER_NAME: "none",
}
"""What an empty value is called."""


@dataclass(frozen=True, slots=True)
class Group:
    """One of the files that flows are parted into.

    Attributes
    ----------
    name
        Beginning of its name, of safe characters only.
    label
        What it holds, for people: printable ASCII.
    """

    name: str
    label: str


class Grouping:
    """Learn from flow tables which group each flow is of.

    The first `most` values that appear have a group each, later ones share the group `other`.
    Memory: 12 bytes a flow, and one row for each group.

    Parameters
    ----------
    by
        What parts the flows.
    selection
        Flows wanted.
    most
        Most groups beside `other`.
    """

    def __init__(self, by: GroupBy, selection: Selection, most: int) -> None:
        self.by = by
        self.groups: list[Group] = []
        self._wanted = selection.expression()
        self._most = most
        self._taken: dict[str, int] = {}
        self._last_flow = 0
        self._known: pl.DataFrame | None = None
        self._flows: list[pl.Series] = []
        self._groups: list[pl.Series] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take in the flows of one table.

        Raises
        ------
        VeilwatchError
            If the table lacks the column that parts the flows.
        """
        if frame.height:
            self._last_flow = max(self._last_flow, int(frame["flow_id"].to_numpy().max()))
        frame = frame.filter(self._wanted)
        if self.by is GroupBy.ALL:
            if frame.height and not self.groups:
                self._name("all", "all")
            groups = pl.repeat(0, frame.height, dtype=pl.UInt32, eager=True)
        else:
            groups = self._part(frame, COLUMNS[self.by])
        self._flows.append(frame["flow_id"])
        self._groups.append(groups)

    def finish(self) -> npt.NDArray[np.int32]:
        """Return the group of each flow by its flow_id; `UNWANTED` where it has none.

        The group beyond those of the values themselves is `other`.
        """
        group_of = np.full(self._last_flow + 1, UNWANTED, np.int32)
        for flows, groups in zip(self._flows, self._groups, strict=True):
            group_of[flows.to_numpy()] = groups.to_numpy()
        if group_of.max() == len(self.groups):
            self._name("other", f"{self.by} beyond the first {self._most:,}")
        return group_of

    def _part(self, frame: pl.DataFrame, column: str) -> pl.Series:
        """Return the group of each row."""
        if column not in frame.columns:
            raise VeilwatchError(
                f"the flows have no {column}", where=f"--by {self.by}", hint="choose another"
            )
        if self._known is None:
            self._known = pl.DataFrame(schema={column: frame.schema[column], "group": pl.UInt32})
        new = (
            frame.join(self._known, on=column, how="anti", maintain_order="left")
            .unique(column, keep="first", maintain_order=True)
            .head(self._most - len(self.groups))
        )
        first = len(self.groups)
        for row in new.iter_rows(named=True):
            self._name(*_describe(self.by, row[column], row))
        numbers = pl.int_range(first, len(self.groups), dtype=pl.UInt32, eager=True)
        self._known = pl.concat([self._known, new.select(column).with_columns(group=numbers)])
        groups = frame.select(column).join(
            self._known, on=column, how="left", maintain_order="left"
        )["group"]
        return groups.fill_null(len(self.groups))

    def _name(self, name: str, label: str) -> None:
        """Add a group under a name that no other has, upper and lower case alike."""
        safe = _UNSAFE.sub("_", name)[:MAX_NAME]
        count = self._taken[safe.lower()] = self._taken.get(safe.lower(), 0) + 1
        unique = safe if count == 1 else f"{safe}~{count}"  # no safe name holds a tilde
        self.groups.append(Group(unique, label))


def _describe(by: GroupBy, value: Any, row: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and label of the group that a flow is the first of."""
    if by is GroupBy.FLOW:
        return f"flow-{value:06}", _describe_flow(value, row)
    text = str(value) or _EMPTY[by]
    return f"{by}-{text}", f"{by} {ascii_escaped(text, MAX_VALUE)}"


def _describe_flow(value: int, row: Mapping[str, Any]) -> str:
    source, target = (_end_point(row[f"{side}_ip"], row[f"{side}_port"]) for side in ("src", "dst"))
    said = [f"flow {value}: {source} > {target}", f"IP protocol {row['protocol']}"]
    if row["service"]:
        said.append(f"service {row['service']}")
    if row["tls_sni"]:
        said.append(f"server name {ascii_escaped(row['tls_sni'], MAX_VALUE)}")
    if row["gtp_depth"]:
        said.append(
            f"in GTP-U {row['outer_src_ip']} > {row['outer_dst_ip']}, "
            f"TEID {teid_text(row['fwd_teid'])} out, {teid_text(row['bwd_teid'])} back"
        )
    return ", ".join(said)


def _end_point(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
