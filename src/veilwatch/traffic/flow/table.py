"""From the meter's records to the columns of the flow table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.schema.flows import (
    FILE_MESSAGES,
    GAP_EDGES_NS,
    IDENTITY_COLUMNS,
    MEASURE_COLUMNS,
    SIZE_EDGES,
    FlowBatch,
)
from veilwatch.traffic.flow.addresses import format_addresses
from veilwatch.traffic.flow.prefix import prefix_measures

FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")

Values = npt.NDArray[Any]


def measure_table(batch: FlowBatch) -> pl.DataFrame:
    """Return the identity, measure and sequence columns of finished flows.

    Means and deviations are population moments from sums that the meter kept; where a flow has
    too few packets for one, it is NaN.
    """
    records = batch.records
    columns: dict[str, Values | pl.Series] = {
        name: records[name]
        for name in (
            *("flow_id", "parent_id", "source", "first_number", "first_ns", "last_ns"),
            *("src_port", "dst_port", "protocol", "ip_version", "icmp_type", "icmp_code"),
            *("gtp_depth", "handovers", "session", "tcp_state", "end_reason", "pauses", "turns"),
        )
    }
    tunnelled = pl.Series(records["gtp_depth"] > 0)
    for name in ("src", "dst"):
        columns[f"{name}_ip"] = format_addresses(records[f"{name}_hi"], records[f"{name}_lo"])
        outer = format_addresses(records[f"outer_{name}_hi"], records[f"outer_{name}_lo"])
        columns[f"outer_{name}_ip"] = outer.zip_with(
            tunnelled, pl.repeat("", len(outer), eager=True)
        )
    columns["gtp_direction"] = _gtp_direction(records)
    for name in ("subscriber", "subscriber_by", "apn", "location"):  # known to the directory
        columns[name] = pl.repeat("", len(records), eager=True)
    columns["pause_mean"] = _mean(records["pause_sum"], records["pauses"])
    columns["pause_std"] = _deviation(
        records["pause_sum"], records["pause_sumsq"], records["pauses"], least=2
    )
    for k, kind in enumerate(FILE_MESSAGES):
        columns[f"file_{kind}"] = records["file_messages"][:, k]
    for direction, prefix in enumerate(("fwd", "bwd")):
        for name, values in _directed(records, direction).items():
            columns[f"{prefix}_{name}"] = values
    ordered = [
        pl.Series(column.name, columns[column.name]).cast(column.dtype)
        for column in (*IDENTITY_COLUMNS, *MEASURE_COLUMNS)
    ]
    sequences = batch.sequences
    for name in ("size", "payload", "gap_us", "flags"):
        ordered.append(pl.Series(f"seq_{name}", np.ascontiguousarray(sequences[name])))
    return pl.DataFrame(ordered)


def _directed(records: npt.NDArray[np.void], d: int) -> dict[str, Values]:
    """Return the measures of one direction by their name without prefix."""
    way, start = records["way"][:, d], records["start"][:, d]
    packets, payloads = way["packets"], way["payload_packets"]
    seen = packets > 0
    gaps = np.maximum(packets.astype(np.int64) - 1, 0)
    span = (way["dir_last_ns"] - start["dir_first_ns"]) / 1e9
    out: dict[str, Values] = {
        name: way[name]
        for name in (
            *("packets", "bytes", "payload_packets", "payload_bytes", "size_min", "size_max"),
            *("payload_max", "first_payload", "window_min", "window_max", "zero_windows"),
            *("retransmissions", "out_of_order", "keep_alives", "duplicates", "fragments"),
            *("bursts", "burst_max_bytes"),
        )
    }
    for name in ("window_first", "mss", "wscale", "ttl", "vlan", "teid", "qfi"):
        out[name] = start[name]
    out["stream_bytes"] = way["payload_bytes"] - way["old_bytes"]
    out["size_std"] = np.nan_to_num(_deviation(way["bytes"], way["size_sumsq"], packets))
    out["payload_std"] = np.nan_to_num(
        _deviation(way["payload_bytes"], way["payload_sumsq"], payloads)
    )
    out["start"] = np.where(seen, (start["dir_first_ns"] - records["first_ns"]) / 1e9, np.nan)
    out["duration"] = span
    out["gap_min"] = np.where(gaps > 0, way["gap_min_ns"] / 1e9, np.nan)
    out["gap_max"] = np.where(gaps > 0, way["gap_max_ns"] / 1e9, np.nan)
    out["gap_mean"] = _mean(span, gaps)
    out["gap_std"] = _deviation(span, way["gap_sumsq"], gaps)
    out["window_mean"] = np.nan_to_num(_mean(way["window_sum"], packets))
    for k, flag in enumerate(FLAGS):
        out[flag] = way["flag_counts"][:, k]
    for k, edge in enumerate(SIZE_EDGES):
        out[f"size_from_{edge}"] = way["size_counts"][:, k]
    for k, edge in enumerate(GAP_EDGES_NS):
        out[f"gap_from_{edge // 1000}us"] = way["gap_counts"][:, k]
    used = way["prefix_used"]
    out["prefix_bytes"] = used
    out.update(prefix_measures(start["prefix"], used))
    return out


def _gtp_direction(records: npt.NDArray[np.void]) -> pl.Series:
    """Tell from PDU types (TS 38.415 cl. 5.5.3.1) on which side of a flow the subscriber is."""
    fwd, bwd = records["start"]["gtp_pdu_type"].T
    uplink = (fwd == 1) | (bwd == 0)
    downlink = (fwd == 0) | (bwd == 1)
    text = np.where(uplink & ~downlink, "uplink", np.where(downlink & ~uplink, "downlink", ""))
    return pl.Series(text.astype(object), dtype=pl.String)


def _mean(total: Values, count: Values) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


def _deviation(total: Values, squares: Values, count: Values, least: int = 1) -> Values:
    """Return the population standard deviation, NaN below `least` values."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / count
        variance = np.maximum(squares / count - mean * mean, 0.0)
        return np.where(count >= least, np.sqrt(variance), np.nan)
