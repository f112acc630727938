"""What Zeek calls the state and the history of a connection, as far as a flow table tells them.

The meanings are those of Zeek's documentation of `Conn::Info`. The history's letters are told
by the first packets of a flow, which are kept one by one; of later packets only counts are known,
so letters that first appear among them come last, in a fixed order.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.schema.flows import TcpState

TCP: Final = 6
UDP: Final = 17
ICMP: Final = (1, 58)

_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10

LETTERS: Final = "qshaidfrwt"
"""Letters that a history may hold, upper case for the originator; and `^`."""

_LATER: Final = 1 << 16
"""Place of a letter whose packet is not among those kept one by one."""

_ABSENT: Final = 1 << 24

Mask = npt.NDArray[np.bool_]


def conn_state() -> pl.Expr:
    """Return the expression of a flow's `conn_state`.

    Examples
    --------
    >>> from tests.report.factory import flow_frame
    >>> flows = flow_frame(2, protocol=[17, 1], fwd_packets=[1, 1], bwd_packets=[1, 0])
    >>> flows.select(conn_state().alias("conn_state"))["conn_state"].to_list()
    ['SF', 'OTH']
    """
    state = pl.col("tcp_state").cast(pl.Int64)
    syn, synack = (state & TcpState.SYN) != 0, (state & TcpState.SYN_ACK) != 0
    # The bits know what an earlier record of a long connection saw, the counts what a new attempt
    # after a RST has cleared.
    fin_o = ((state & TcpState.FIN_FWD) != 0) | (pl.col("fwd_fin") > 0)
    fin_r = ((state & TcpState.FIN_BWD) != 0) | (pl.col("bwd_fin") > 0)
    midstream_answer = ~synack & (pl.col("bwd_payload_packets") > 0)
    rst_o, rst_r = pl.col("fwd_rst") > 0, pl.col("bwd_rst") > 0
    tcp = (
        pl.when(fin_o & fin_r)
        .then(pl.lit("SF"))
        .when(rst_r & syn & ~synack)
        .then(pl.lit("REJ"))
        .when(rst_r & ~syn & ~fin_o)
        .then(pl.lit("RSTRH"))
        .when(rst_r)
        .then(pl.lit("RSTR"))
        .when(rst_o & (synack | fin_r))
        .then(pl.lit("RSTO"))
        .when(rst_o)
        .then(pl.lit("RSTOS0"))
        .when(fin_o & synack)
        .then(pl.lit("S2"))
        .when(fin_o)
        .then(pl.lit("SH"))
        .when(fin_r & syn)
        .then(pl.lit("S3"))
        .when(fin_r)
        .then(pl.lit("SHR"))
        .when(syn & synack)
        .then(pl.lit("S1"))
        .when(syn & ~midstream_answer)
        .then(pl.lit("S0"))
        .otherwise(pl.lit("OTH"))
    )
    sent, answered = pl.col("fwd_packets") > 0, pl.col("bwd_packets") > 0
    udp = (
        pl.when(sent & answered)
        .then(pl.lit("SF"))
        .when(sent)
        .then(pl.lit("S0"))
        .when(answered)
        .then(pl.lit("SHR"))
        .otherwise(pl.lit("OTH"))
    )
    protocol = pl.col("protocol")
    return (
        pl.when(protocol == TCP).then(tcp).when(protocol == UDP).then(udp).otherwise(pl.lit("OTH"))
    )


def histories(frame: pl.DataFrame) -> pl.Series:
    """Return the `history` of each flow, null for other protocols than TCP and UDP."""
    sizes, payloads, flags = (
        frame[f"seq_{name}"].to_numpy().astype(np.int64) for name in ("size", "payload", "flags")
    )
    kept = sizes != 0
    tcp = (frame["protocol"] == TCP).to_numpy()
    udp = (frame["protocol"] == UDP).to_numpy()
    letters: list[str] = []
    places: list[npt.NDArray[np.int64]] = []
    for letter in LETTERS:
        shown = _shown(letter, flags, payloads, tcp, udp) & kept
        for prefix, way in (("fwd", sizes > 0), ("bwd", sizes < 0)):
            letters.append(letter.upper() if prefix == "fwd" else letter)
            places.append(_places(shown & way, _counted(letter, frame, prefix) & (tcp | udp)))
    turned = (kept[:, 0] & (sizes[:, 0] < 0)) if sizes.shape[1] else np.zeros(len(sizes), np.bool_)
    first_record = (frame["flow_id"] == frame["parent_id"]).to_numpy()
    letters.append("^")
    places.append(np.where(turned & first_record & (tcp | udp), -1, _ABSENT))
    at = np.stack(places, axis=1)
    order = np.argsort(at, axis=1, kind="stable")
    found = np.where(at < _ABSENT, np.array(letters), "")
    texts = ["".join(row) for row in np.take_along_axis(found, order, axis=1).tolist()]
    known = pl.Series(tcp | udp)
    return pl.select(pl.when(known).then(pl.Series(texts, dtype=pl.String))).to_series()


def _shown(letter: str, flags: Any, payloads: Any, tcp: Mask, udp: Mask) -> Mask:
    """Tell which of the kept packets show a letter, shape (flows, packets)."""
    syn, fin, rst, ack = (flags & bit != 0 for bit in (_SYN, _FIN, _RST, _ACK))
    over_tcp, over_udp = tcp[:, np.newaxis], udp[:, np.newaxis]
    many = syn & (fin | rst)
    shown: Mask
    if letter == "q":
        shown = over_tcp & many
    elif letter == "i":
        shown = over_tcp & fin & rst & ~many
    elif letter == "s":
        shown = over_tcp & syn & ~ack & ~many
    elif letter == "h":
        shown = over_tcp & syn & ack & ~many
    elif letter == "a":
        shown = over_tcp & ack & ~syn & ~fin & ~rst & (payloads == 0)
    elif letter == "d":
        shown = (over_tcp & (payloads > 0)) | over_udp
    elif letter == "f":
        shown = over_tcp & fin & ~rst & ~many
    elif letter == "r":
        shown = over_tcp & rst & ~fin & ~many
    else:
        shown = np.zeros(flags.shape, np.bool_)
    return shown


def _counted(letter: str, frame: pl.DataFrame, prefix: str) -> Mask:
    """Tell which flows show a letter by what was counted over all their packets."""
    columns = {
        "d": "payload_packets",
        "f": "fin",
        "r": "rst",
        "w": "zero_windows",
        "t": "retransmissions",
    }
    if letter not in columns:
        return np.zeros(frame.height, np.bool_)
    return (frame[f"{prefix}_{columns[letter]}"] > 0).to_numpy()


def _places(shown: Mask, counted: Mask) -> npt.NDArray[np.int64]:
    """Return the first packet that shows a letter, `_LATER` if only its count does."""
    if not shown.shape[1]:
        return np.where(counted, _LATER, _ABSENT)
    return np.where(shown.any(axis=1), shown.argmax(axis=1), np.where(counted, _LATER, _ABSENT))
