"""Captures of the lab: activities on stage, merged by time, wrapped in GTP-U, written with truth.

Nothing is sent anywhere: packets are built in memory and written to files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from veilwatch.corpus.lab.activities import EmulatedFlow, Pool, Stage, perform
from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.packets import UDP, Packet
from veilwatch.corpus.lab.profile import Activity, Profile, Variant, load_profiles
from veilwatch.corpus.lab.world import RESOLVER, User, make_user
from veilwatch.corpus.tunnel import wrap
from veilwatch.files import make_folder, write_text
from veilwatch.progress import SILENT, Progress
from veilwatch.schema.units import SECOND_NS
from veilwatch.traffic.capture import PcapngWriter

CAPTURES_PER_PROFILE: Final = 6
"""Shared by the variants of a profile that are trained on: every profile weighs the same."""

WHOLE: Final = 12
"""Packets with payload of a flow's direction that are written whole: handshakes are among them.
The corpus of real captures is cut in the same way."""

KEPT: Final = 64
"""Payload bytes of each later packet. Sizes stay those on the wire, files a fifth as long."""

MANIFEST_COLUMNS: Final = (
    "file", "label", "family", "is_ransomware", "group", "source_repo", "capture_start",
    "variant", "emulated", "notes", "publisher", "malicious_endpoints",
)  # fmt: skip

TRUTH_COLUMNS: Final = (
    "first_ns", "src_ip", "src_port", "dst_ip", "dst_port", "protocol", "packets",
    "label", "family", "variant", "activity",
)  # fmt: skip

_FIRST_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
_DAYS: Final = 600  # over which captures are spread, whatever their class
HABITS: Final = 5, 8  # how many of the things that people do one host does
_HABIT_SHARE: Final = 0.2, 0.6  # of the flows that a habit has in a capture of its own
_FIELD_SHARE: Final = 0.5  # of what a host of a training capture does, as the link holds many
_FIELD_SPREAD: Final = 300.0  # s over which the subscribers of the field capture begin


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A flow and the profile that made it."""

    flow: EmulatedFlow
    profile: Profile
    variant: Variant


def _notice(seed: int) -> str:
    return f"emulated traffic, made by Veilwatch lab, seed {seed}; nobody's real traffic"


def _play(
    profile: Profile,
    variant: Variant,
    activities: Iterable[Activity],
    stage: Stage,
) -> list[_Labelled]:
    return [
        _Labelled(flow, profile, variant)
        for activity in activities
        for flow in perform(activity, stage)
    ]


class _Pools:
    """The servers of every variant, made when they are first needed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._pools: dict[str, Pool] = {}

    def of(self, variant: Variant, campaign: int | None = None) -> Pool:
        """Return the servers of one variant; those that only one campaign of it uses if given."""
        key = variant.id if campaign is None else f"{variant.id}-{campaign}"
        if key not in self._pools:
            self._pools[key] = Pool(f"{self._seed}/{key}", _start_of(self._seed, key))
        return self._pools[key]


def _day(stage: Stage, pools: _Pools, *, without: str) -> list[_Labelled]:
    """Return what people do at a host, whoever else is on it; drawn alike for every class."""
    habits = [p for p in load_profiles() if p.habit and p.name != without]
    played = []
    for profile in stage.draw.sample(habits, stage.draw.randrange(*HABITS)):
        variant = stage.draw.one(profile.variant)
        other = Stage(
            epoch_ns=stage.epoch_ns,
            users=stage.users,
            draw=stage.draw,
            scale=stage.scale * stage.draw.between(_HABIT_SHARE),
            pool=pools.of(variant),
        )
        played += _play(profile, variant, variant.activity, other)
    return played


def _endpoints(flows: list[_Labelled]) -> str:
    """Return what the infection talked to, `ip:port;…`.

    The resolver is not among them: everybody asks it.
    """
    found = {
        (ends.destination, ends.destination_port): None
        for ends in (entry.flow.ends for entry in flows if entry.profile.malicious)
        if ends.destination != RESOLVER.packed
    }
    return ";".join(f"{IPv4Address(address)}:{port}" for address, port in found)


def _kept(flow: EmulatedFlow) -> Iterable[tuple[Packet, int]]:
    """Yield the flow's packets with how many bytes at the end of each are not written."""
    told = {True: 0, False: 0}
    for packet in flow.packets:
        header = 28 if flow.protocol == UDP else 20 + (packet.data[32] >> 4) * 4
        payload = len(packet.data) - header
        told[packet.uplink] += payload > 0
        yield packet, max(payload - KEPT, 0) if told[packet.uplink] > WHOLE else 0


def _write_capture(path: Path, flows: list[_Labelled], seed: int) -> None:
    """Merge the flows' packets by time, wrap them and write them as seen on N3."""
    packets = [
        (packet, cut, labelled.flow.user.tunnel)
        for labelled in flows
        for packet, cut in _kept(labelled.flow)
    ]
    packets.sort(key=lambda item: item[0].ts_ns)
    with PcapngWriter(path, link=1, comment=_notice(seed), interface_name="n3") as writer:
        for packet, cut, tunnel in packets:
            frame = wrap(packet.data, tunnel, uplink=packet.uplink, pdu_session=True)
            writer.write(packet.ts_ns, frame[: len(frame) - cut], len(frame))


def _write_table(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_text(path, text.getvalue())


def _truth(flows: list[_Labelled]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (
            min(packet.ts_ns for packet in entry.flow.packets),
            str(IPv4Address(entry.flow.ends.source)),
            entry.flow.ends.source_port,
            str(IPv4Address(entry.flow.ends.destination)),
            entry.flow.ends.destination_port,
            entry.flow.protocol,
            len(entry.flow.packets),
            "malicious" if entry.profile.malicious else "benign",
            entry.profile.name,
            entry.variant.id,
            entry.flow.activity,
        )
        for entry in flows
    ]
    return sorted(rows, key=str)


def _distinct_users(count: int, draw: Draw) -> list[User]:
    """Return subscribers of which no two share an address or a TEID."""
    users: list[User] = []
    taken: set[object] = set()
    while len(users) < count:
        user = make_user(draw)
        tunnel = user.tunnel
        keys = {tunnel.address, tunnel.uplink_teid, tunnel.downlink_teid}
        if not keys & taken:
            taken |= keys
            users.append(user)
    return users


def _start_of(seed: int, *key: object) -> datetime:
    """Return when a capture begins; drawn alike for every class."""
    draw = Draw(seed, "day", *key)
    return _FIRST_DAY + timedelta(seconds=draw.randrange(_DAYS * 86_400))


def build_lab(
    folder: Path, *, seed: int = 7, scale: float = 1.0, progress: Progress = SILENT
) -> Path:
    """Write the emulated corpus: captures, truth of each flow, manifest.

    The variants of a profile that are not kept for the field share `CAPTURES_PER_PROFILE`
    captures of one subscriber each, who uses the host as people do beside what is played.
    Captures are labelled as a whole; `truth/` names every flow, and `malicious_endpoints` of the
    manifest what an infection talked to.

    Parameters
    ----------
    folder
        Where to write; files of an earlier build are replaced.
    seed
        Everything depends on nothing else but keys and signatures of certificates, which differ
        between builds, and with them the checksums of packets that show them.
    scale
        Factor on the number of flows; the number of captures stays.
    progress
        Told of each capture.

    Returns
    -------
    Path
        The manifest, `MANIFEST.csv`.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    make_folder(folder)
    work = [
        (profile, variant, number)
        for profile in load_profiles()
        for variant in profile.trained
        for number in range(CAPTURES_PER_PROFILE // len(profile.trained))
    ]
    progress.start("Emulating captures", len(work))
    pools = _Pools(seed)
    rows: list[tuple[object, ...]] = []
    for profile, variant, number in work:
        draw = Draw(seed, variant.id, number)
        began = _start_of(seed, variant.id, number)
        stage = Stage(
            epoch_ns=int(began.timestamp()) * SECOND_NS,
            users=_distinct_users(1, draw),
            draw=draw,
            scale=scale,
            # whoever spreads a family, or runs an application, has servers of their own
            pool=pools.of(variant, number),
        )
        flows = _play(profile, variant, variant.activity, stage)
        if profile.used:
            flows += _day(stage, pools, without=profile.name)
        label = "malicious" if profile.malicious else "benign"
        name = f"{label}/{profile.name}/{variant.id}-{number}"
        _write_capture(folder / f"{name}.pcapng", flows, seed)
        _write_table(folder / "truth" / f"{name}.csv", TRUTH_COLUMNS, _truth(flows))
        rows.append(
            (
                f"{name}.pcapng",
                label,
                profile.name,
                int(profile.kind == "ransomware"),
                variant.id,
                f"veilwatch-lab:{variant.id}",
                began.date().isoformat(),
                variant.id,
                1,
                f"{_notice(seed)}; behaviour after: {profile.source.title}, "
                f"{profile.source.publisher}, {profile.source.year}",
                "veilwatch-lab",
                _endpoints(flows),
            )
        )
        progress.advance()
    manifest = folder / "MANIFEST.csv"
    _write_table(manifest, MANIFEST_COLUMNS, rows)
    return manifest


def field_capture(
    path: Path,
    *,
    seed: int = 11,
    subscribers: int = 60,
    infected: int = 5,
    scale: float = 1.0,
    progress: Progress = SILENT,
) -> Path:
    """Write one capture of a busy N3 link on which a few subscribers are infected.

    The infected ones run variants that `build_lab` never writes. Beside the capture lies
    `<name>.truth.csv`, one row a subscriber, and `<name>.flows.csv`, one row a flow.

    Parameters
    ----------
    path
        The pcapng to write.
    seed
        See `build_lab`; another seed than that of the training captures also means other
        servers, certificates and names.
    subscribers
        How many there are in all.
    infected
        How many of them are infected.
    scale
        Factor on the number of flows of each subscriber.
    progress
        Told of each subscriber.

    Returns
    -------
    Path
        The table of subscribers.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    make_folder(path.parent)
    draw = Draw(seed, "field")
    began = _start_of(seed, "field")
    epoch_ns = int(began.timestamp()) * SECOND_NS
    fresh = [(p, v) for p in load_profiles() if p.malicious for v in p.variant if v.field]
    ordinary = [(p, v) for p in load_profiles() if not p.malicious for v in p.variant]
    users = _distinct_users(subscribers, draw)
    chosen = draw.sample(range(subscribers), min(infected, subscribers))
    families = draw.sample(fresh, min(len(chosen), len(fresh)))
    sick = {index: families[turn % len(families)] for turn, index in enumerate(chosen)}
    pools = _Pools(seed)
    flows: list[_Labelled] = []
    rows: list[tuple[object, ...]] = []
    progress.start("Emulating a busy link", subscribers)
    for index, user in enumerate(users):
        shift_ns = int(draw.uniform(0, _FIELD_SPREAD) * 1e9)
        stage = Stage(
            epoch_ns=epoch_ns + shift_ns,
            users=[user],
            draw=draw,
            scale=scale * _FIELD_SHARE,
            pool=pools.of(ordinary[0][1]),
        )
        profile, variant = draw.one(ordinary)
        played = [(profile, variant, scale * _FIELD_SHARE)]
        if profile.used or index in sick:
            flows += _day(stage, pools, without=profile.name)
        if index in sick:
            played.append((*sick[index], scale))
        for profile, variant, share in played:
            stage = Stage(
                epoch_ns=epoch_ns + shift_ns,
                users=[user],
                draw=draw,
                scale=share,
                pool=pools.of(variant),
            )
            flows += _play(profile, variant, variant.activity, stage)
        family, name = (sick[index][0].name, sick[index][1].id) if index in sick else ("", "")
        label = "malicious" if index in sick else "benign"
        rows.append((user.tunnel.address, label, family, name))
        progress.advance()
    _write_capture(path, flows, seed)
    _write_table(path.with_suffix(".flows.csv"), TRUTH_COLUMNS, _truth(flows))
    truth = path.with_suffix(".truth.csv")
    _write_table(truth, ("subscriber", "label", "family", "variant"), rows)
    return truth
