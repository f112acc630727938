"""Hosts that are used, as capture files: blends with their manifest.

Every other tool can read what a blend holds, and the flows of the file are those that
`veilwatch.corpus.blend.blend_flows` makes of tables, but for those whose ports are taken already.
The use is emulated: the host's person and its malware never met.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from ipaddress import ip_address
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from veilwatch.corpus.blend import (
    SIZES,
    Blend,
    blend_flows,
    busiest_hosts,
    plan_blends,
    used_hosts,
)
from veilwatch.corpus.blend_frames import Move, Tunnel, base_blocks, host_mac, moved_blocks
from veilwatch.corpus.catalogue import Corpus
from veilwatch.corpus.manifest import CaptureEntry, write_manifest
from veilwatch.corpus.tunnel import Subscriber, mac_of
from veilwatch.errors import CorpusError
from veilwatch.files import make_folder
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.packets import NONE8, RawBlock
from veilwatch.schema.units import SECOND_NS
from veilwatch.traffic.capture import Interface, PcapngWriter
from veilwatch.traffic.capture.clock import MAX_TIME_NS, MIN_TIME_NS
from veilwatch.traffic.capture.merge import Waiting, merge
from veilwatch.traffic.capture.times import opening_time
from veilwatch.traffic.flow import MeterConfig

MANIFEST: Final = "MANIFEST.csv"

FORM: Final = 1
"""Raised whenever equal inputs make another file: what earlier versions wrote is not kept then."""

PER_SIZE: Final = 25
"""Captures of each size unless the caller asks for more: a first look, and no full disk."""

MAX_SIZE: Final = 100
"""Most used hosts in a blend: a file that is open for each, and a floor full of people on one."""

MAX_ENDPOINTS_CHARS: Final = 32_768
"""Longest list of malicious end points, half of a manifest's row: 1,500 responders."""

REFUSED: Final = {
    "no_flow": "the capture holds no flow",
    "partners": "too few used hosts with an address of the same IP version",
    "tunnel": "the tunnel of its busiest host does not show both directions, or not whose it is",
    "time": "a used host would have to come before 1970 or after 2116",
    "endpoints": "more malicious end points than a manifest's row holds",
}
"""Why a capture is not blended."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_STEM: Final = 80  # of a file's name; a digest and a suffix follow
_MAX_NAMES: Final = 4096  # letters of names in a comment and in a row
_MAX_INTERFACES: Final = 1024  # told apart in a file; packets of further ones share one
_IDLE_NS: Final = int(MeterConfig().idle_timeout_s * SECOND_NS)
_NEEDED: Final = (
    *("capture", "flow_id", "parent_id", "first_ns", "last_ns", "src_ip", "src_port", "dst_ip"),
    *("dst_port", "protocol", "subscriber", "gtp_depth", "gtp_direction", "outer_src_ip"),
    *("outer_dst_ip", "fwd_teid", "bwd_teid", "fwd_qfi", "fwd_packets"),
)


class _Refused(Exception):
    """A capture that cannot be blended, for one of the reasons of `REFUSED`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BlendOptions:
    """What is blended.

    Attributes
    ----------
    sizes
        How many used hosts are merged with a capture; each capture has a blend of each size.
    per_size
        Captures of each size, chosen at random; all where there are fewer.
    benign
        Whether benign captures are blended instead of malicious ones.
    families
        Families whose captures are blended; all where there is none.
    seed
        Choice of captures and partners depends on nothing else.

    Raises
    ------
    CorpusError
        If a size is out of range or named twice.
    """

    sizes: tuple[int, ...] = SIZES
    per_size: int = PER_SIZE
    benign: bool = False
    families: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [size for size in self.sizes if not 1 <= size <= MAX_SIZE]
        if wrong or not self.sizes or len(set(self.sizes)) < len(self.sizes):
            raise CorpusError(
                f"sizes {','.join(map(str, self.sizes))}",
                hint=f"name numbers of used hosts from 1 to {MAX_SIZE}, each once, as in 1,3,10",
            )


@dataclass(slots=True)
class BlendSummary:
    """What was written.

    Attributes
    ----------
    manifest
        The table of the blends.
    entries
        Its rows.
    made
        How many of them were written by this run; the others were there.
    refused
        Names of captures that were not blended, by the reasons of `REFUSED`.
    left_out
        Flows of used hosts whose ports were taken, or that spoke to the host itself.
    """

    manifest: Path
    entries: list[CaptureEntry] = field(default_factory=list)
    made: int = 0
    refused: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    left_out: int = 0


def write_blends(
    corpus: Corpus,
    folder: Path,
    *,
    options: BlendOptions = BlendOptions(),
    progress: Progress = SILENT,
) -> BlendSummary:
    """Write blends of captures of a corpus and a manifest of them.

    Files appear whole; those that an earlier run with equal inputs has made are kept as they are.

    Parameters
    ----------
    corpus
        As `veilwatch.corpus.catalogue.load_corpus` reads it, with the default settings.
    folder
        Where to write.

    Raises
    ------
    CorpusError
        If no capture can be blended.
    CaptureError
        If a capture cannot be read any more.
    OutputError
        If the folder cannot be written to.
    """
    make_folder(folder)
    blender = _Blender(corpus, folder)
    summary = blender.summary
    plan = blender.plan(options)
    progress.start(f"Blending {len(plan)} times", len(plan))
    for blend in plan:
        try:
            blender.write(blend)
        except _Refused as refusal:
            blender.refuse(refusal.reason, [blend.base])
        progress.advance()
    if not summary.entries:
        why = "; ".join(REFUSED[reason] for reason in summary.refused)
        raise CorpusError(
            "no capture could be blended" + (f": {why}" if why else ""),
            where=corpus.manifest or "",
            hint="name other families, or add benign captures of hosts that people use",
        )
    write_manifest(summary.manifest, summary.entries)
    return summary


class _Blender:
    """Chooses blends of one corpus and writes them into one folder."""

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        self.summary = BlendSummary(folder / MANIFEST)
        self._corpus = corpus
        self._folder = folder
        self._hosts: dict[int, str] = {
            capture: host for capture, host, _ in busiest_hosts(corpus.flows).iter_rows()
        }
        parts = corpus.flows.select(_NEEDED).partition_by("capture", as_dict=True)
        self._flows = {int(capture): flows for (capture,), flows in parts.items()}

    def refuse(self, reason: str, captures: Iterable[int]) -> None:
        """Say why captures are not blended."""
        for capture in captures:
            self.summary.refused[reason].append(self._corpus.entries[capture].name)

    def plan(self, options: BlendOptions) -> list[Blend]:
        """Choose captures and partners; a host of IPv4 cannot take the flows of one of IPv6."""
        entries = self._corpus.entries
        benign = np.array([entry.label == "benign" for entry in entries], bool)
        version = np.zeros(len(entries), np.int64)
        for capture, host in self._hosts.items():
            version[capture] = ip_address(host).version
        named = [not options.families or entry.family in options.families for entry in entries]
        asked = np.flatnonzero((benign == options.benign) & np.array(named, bool))
        self.refuse("no_flow", asked[version[asked] == 0].tolist())
        bases = asked[version[asked] > 0]
        used = used_hosts(self._corpus.flows, benign)
        plan = []
        for size in options.sizes:
            rng = np.random.default_rng([options.seed, size])
            chosen = np.sort(rng.permutation(bases)[: options.per_size])
            blends = plan_blends(chosen, used, version, size, seed=options.seed)
            self.refuse("partners", sorted(set(chosen.tolist()) - {b.base for b in blends}))
            plan += blends
        return plan

    def write(self, blend: Blend) -> None:
        """Write one blend, unless it is there, and remember its row.

        Raises
        ------
        _Refused
            If that is not possible.
        """
        entry = self._corpus.entries[blend.base]
        partners = [self._corpus.entries[k] for k in blend.partners]
        own, host = self._flows[blend.base], self._hosts[blend.base]
        tunnel = host_tunnel(own, host)
        flows = pl.concat([self._flows[k] for k in (blend.base, *blend.partners)])
        blended, row = blend_flows(flows, [blend])
        moved = blended.with_columns(
            capture=flows["capture"][row],
            old_ip=flows["src_ip"][row],
            shift=blended["first_ns"] - flows["first_ns"][row],
        )
        if int(moved["first_ns"].to_numpy().min()) < MIN_TIME_NS or (
            int(moved["last_ns"].to_numpy().max()) > MAX_TIME_NS
        ):
            raise _Refused("time")
        kept, left_out = without_clashes(moved, blend)
        endpoints = _endpoints(entry, own, kept, blend)
        name = self._name(blend)
        if not (self._folder / name).exists():
            mac = host_mac(entry.file, _packed(host)) or mac_of(ip_address(host))
            parts = [base_blocks(entry.file, 0, _packed(host), mac)]
            for number, capture in enumerate(blend.partners, 1):
                theirs = kept.filter(pl.col("capture") == capture)
                if theirs.is_empty():
                    continue
                file, old = self._corpus.entries[capture].file, _packed(self._hosts[capture])
                move = Move(
                    flows=theirs["flow_id"].to_numpy().astype(np.int64),
                    shift_ns=int(theirs["shift"][0]),
                    old=old,
                    new=_packed(host),
                    old_mac=host_mac(file, old),
                    mac=mac,
                    tunnel=tunnel,
                )
                parts.append(moved_blocks(file, number, move))
            _write_file(self._folder / name, parts, _notice(entry, partners))
            self.summary.made += 1
        self.summary.left_out += left_out
        self.summary.entries.append(_entry(entry, partners, self._folder, name, endpoints))

    def _name(self, blend: Blend) -> str:
        """Return a file's name that tells equal inputs by equal names."""
        entries, hashes = self._corpus.entries, self._corpus.hashes
        inputs = [hashes[entries[k].name] for k in (blend.base, *blend.partners)]
        digest = sha256(repr((FORM, inputs, blend.moments)).encode()).hexdigest()
        stem = _UNSAFE.sub("_", Path(entries[blend.base].name).name)[:_MAX_STEM]
        return f"x{blend.size}/{stem}-{digest[:12]}.pcapng"


def _write_file(path: Path, parts: Sequence[Generator[RawBlock, None, None]], comment: str) -> None:
    places: dict[tuple[int, int], Interface] = {}
    with ExitStack() as stack:
        waiting = []
        for blocks in parts:
            stack.enter_context(closing(blocks))
            first = next(blocks, None)
            if first is not None:
                opened = chain([first], blocks)
                waiting.append(Waiting(opening_time(first.records), partial(iter, opened)))
        writer = stack.enter_context(PcapngWriter(path, link=1, comment=comment))
        for block in merge(waiting):
            buffer, records = block.buffer.data, block.records
            names = ("ts_ns", "offset", "captured", "length", "source", "interface")
            for ts_ns, start, captured, length, source, number in zip(
                *(records[name].tolist() for name in names), strict=True
            ):
                key = (source, number) if len(places) < _MAX_INTERFACES else (source, -1)
                place = places.setdefault(key, Interface(1, f"{source}:{key[1]}"))
                writer.write(ts_ns, buffer[start : start + captured], length, interface=place)


def host_tunnel(own: pl.DataFrame, host: str) -> Tunnel | None:
    """Return the GTP-U tunnel of a host by the flows of its capture; None outside of one.

    Raises
    ------
    _Refused
        If the capture does not show it whole.
    """
    flows = own.filter(pl.col("src_ip") == host).sort("fwd_packets", descending=True)
    if not (flows["gtp_depth"] > 0).any():
        return None
    whole = flows.filter(
        (pl.col("fwd_teid") > 0)
        & (pl.col("bwd_teid") > 0)
        & (pl.col("gtp_direction") != "downlink")
    )
    if whole.is_empty():
        raise _Refused("tunnel")
    best = whole.row(0, named=True)
    qfi = best["fwd_qfi"]
    try:
        found = Subscriber(
            address=ip_address(host),
            uplink_teid=best["fwd_teid"],
            downlink_teid=best["bwd_teid"],
            qfi=0 if qfi == NONE8 else qfi,
            gnb=ip_address(best["outer_src_ip"]),
            upf=ip_address(best["outer_dst_ip"]),
        )
    except ValueError as error:
        raise _Refused("tunnel") from error
    return Tunnel(found, pdu_session=qfi != NONE8)


def without_clashes(moved: pl.DataFrame, blend: Blend) -> tuple[pl.DataFrame, int]:
    """Leave out flows of partners that the meter would take for another's.

    Returns
    -------
    DataFrame
        The flows without them.
    int
        How many connections of partners were left out.
    """
    one, other = (
        pl.concat_str(f"{end}_ip", f"{end}_port", separator=" ") for end in ("src", "dst")
    )
    ends = moved.with_columns(
        low=pl.when(one <= other).then(one).otherwise(other),
        high=pl.when(one <= other).then(other).otherwise(one),
        # What a host says to itself no wire shows.
        itself=pl.col("dst_ip").is_in(pl.concat_list("src_ip", "old_ip")),
    )
    keys = ["low", "high", "protocol"]
    kept = ends.filter(pl.col("capture") == blend.base)
    left_out = 0
    for capture in blend.partners:
        theirs = ends.filter(pl.col("capture") == capture)
        spans = kept.group_by(keys).agg(
            from_ns=pl.col("first_ns").min() - _IDLE_NS, to_ns=pl.col("last_ns").max() + _IDLE_NS
        )
        clash = theirs.join(spans, on=keys, how="left").filter(
            pl.col("itself")
            | ((pl.col("first_ns") <= pl.col("to_ns")) & (pl.col("last_ns") >= pl.col("from_ns")))
        )
        left_out += clash["parent_id"].n_unique()
        kept = pl.concat([kept, theirs.join(clash, on="parent_id", how="anti")])
    return kept.drop("low", "high", "itself"), left_out


def _endpoints(entry: CaptureEntry, own: pl.DataFrame, kept: pl.DataFrame, blend: Blend) -> str:
    """Return whose flows are malicious; responders that partners talk to as well tell nothing."""
    if entry.label == "benign":
        return ""
    if entry.malicious_endpoints:
        return entry.malicious_endpoints
    ends = ["dst_ip", "dst_port"]
    theirs = kept.filter(pl.col("capture") != blend.base)
    found = own.select(ends).unique().join(theirs, on=ends, how="anti").sort(ends)
    text = ";".join(f"{ip}:{port}" for ip, port in found.iter_rows())
    if len(text) > MAX_ENDPOINTS_CHARS:
        raise _Refused("endpoints")
    return text


def _names(entries: Sequence[CaptureEntry]) -> str:
    return ";".join(entry.name for entry in entries)[:_MAX_NAMES]


def _notice(entry: CaptureEntry, partners: Sequence[CaptureEntry]) -> str:
    return (
        f"blend by Veilwatch: {entry.name[:_MAX_NAMES]} on a host with the traffic of "
        f"{_names(partners)}; the use is emulated, nobody recorded this"
    )


def _entry(
    entry: CaptureEntry, partners: Sequence[CaptureEntry], folder: Path, name: str, endpoints: str
) -> CaptureEntry:
    """Return the row of a blend: that of its capture, without what is told of the file."""
    parts = (entry, *partners)
    emulated = any(part.extra.get("emulated", "").lower() in ("1", "true") for part in parts)
    licences = dict.fromkeys(part.extra.get("licence", "") for part in parts)
    return CaptureEntry(
        file=folder / name,
        name=name,
        label=entry.label,
        family=entry.family,
        is_ransomware=entry.is_ransomware,
        group=entry.group,
        source_repo=entry.source_repo,
        capture_start=entry.capture_start,
        publisher=entry.publisher,
        setting=entry.setting,
        malicious_endpoints=endpoints,
        extra={
            "base": entry.name,
            "blended": _names(partners),
            "used_hosts": str(len(partners)),
            "licence": "; ".join(filter(None, licences)),
            "emulated": str(int(emulated)),
            "notes": _notice(entry, partners),
        },
    )


def _packed(host: str) -> bytes:
    address = ip_address(host)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
