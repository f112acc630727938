"""Which flows are wanted: by identity, host, service, server name, tunnel, or any condition."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Final

import polars as pl

from veilwatch.errors import VeilwatchError
from veilwatch.schema.flows import FLOW_COLUMNS
from veilwatch.schema.forms import known, teid_text
from veilwatch.traffic.pipeline.expression import parse

UNKNOWN_SERVICE: Final = "unknown"
"""What people call the empty service of a flow that nobody recognised."""

_COLUMNS: Final = pl.Schema(
    {column.name: column.dtype for column in FLOW_COLUMNS if column.dtype is not pl.Array}
)
"""Columns that a condition may name, with their types."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Flows that meet one of the values of every kind that is given.

    Attributes
    ----------
    flow_ids
        A flow, or a whole connection by the flow_id of its first record.
    hosts
        Inner addresses of either side.
    services
        As in the column `service`, "unknown" for the unrecognised.
    server_names
        Patterns for the server name of TLS: `*` for any characters, `?` for one, upper and
        lower case alike.
    teids
        GTP-U TEIDs of either direction.
    where
        Condition over the columns of the flow table that holds for the flows wanted, in the
        language of `veilwatch.traffic.pipeline.expression`.

    Raises
    ------
    VeilwatchError
        If a host is no address, or the condition is none of that language.
    """

    flow_ids: tuple[int, ...] = ()
    hosts: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    server_names: tuple[str, ...] = ()
    teids: tuple[int, ...] = ()
    where: str = ""

    def __post_init__(self) -> None:
        self.expression()

    def __bool__(self) -> bool:
        return self != Selection()

    def __str__(self) -> str:
        kinds = {
            "flow": self.flow_ids,
            "host": self.hosts,
            "service": self.services,
            "server name": self.server_names,
            "TEID": [teid_text(teid) for teid in self.teids],
            "where": [self.where] if self.where else [],
        }
        said = [
            f"{kind} {' or '.join(map(str, values))}" for kind, values in kinds.items() if values
        ]
        return ", ".join(said) or "all flows"

    def expression(self) -> pl.Expr:
        """Return a boolean expression over the columns of a flow table."""
        tests: list[pl.Expr] = []
        if self.flow_ids:
            tests.append(
                pl.col("flow_id").is_in(self.flow_ids) | pl.col("parent_id").is_in(self.flow_ids)
            )
        if self.hosts:
            hosts = [_address(host) for host in self.hosts]
            tests.append(pl.col("src_ip").is_in(hosts) | pl.col("dst_ip").is_in(hosts))
        if self.services:
            services = [name if name != UNKNOWN_SERVICE else "" for name in self.services]
            tests.append(pl.col("service").is_in(services))
        if self.server_names:
            pattern = "|".join(map(_pattern, self.server_names))
            tests.append(
                (pl.col("tls_sni") != "") & pl.col("tls_sni").str.contains(f"(?is)^(?:{pattern})$")
            )
        if self.teids:
            tests.append(
                pl.col("fwd_teid").is_in(self.teids) | pl.col("bwd_teid").is_in(self.teids)
            )
        if self.where:
            tests.append(_where(self.where))
        return reduce(and_, tests, pl.lit(True))


def _address(text: str) -> str:
    """Return an address as the flow table writes it."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, text))
        except OSError:
            continue
    raise VeilwatchError("not an IP address", where=text, hint="give one as in 10.45.0.2")


def _pattern(glob: str) -> str:
    """Return the regular expression of a pattern with `*` and `?`."""
    return "".join({"*": ".*", "?": "."}.get(char) or re.escape(char) for char in glob)


def _where(text: str) -> pl.Expr:
    """Return the expression `text`, tried on an empty flow table."""
    expression = parse(text, {name: (dtype, known(name)) for name, dtype in _COLUMNS.items()})
    pl.DataFrame(schema=_COLUMNS).filter(expression)
    return expression
