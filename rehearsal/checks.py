"""What a rehearsal has to show; each check says what it saw."""

from __future__ import annotations

from collections.abc import Mapping

from rehearsal.esm import ROUTES
from rehearsal.outcome import Check

Counts = Mapping[str, int]


def check_all(
    stages: Counts,
    delivery: Mapping[str, Counts],
    *,
    faults: list[str],
    documents: int,
    exit_code: int | None,
    killed: str,
) -> list[Check]:
    """Return every check, whether it holds or not."""
    return [
        *_packets(stages, killed),
        *_rows(stages, killed),
        *_delivery(stages, delivery, documents),
        Check("the receivers found no rule broken", not faults, "; ".join(faults[:3]) or "none"),
        Check("the sensor ended by itself", exit_code == 0, f"exit code {exit_code}"),
    ]


def _packets(stages: Counts, killed: str) -> list[Check]:
    sent, switch, mirrored, arrived = (
        stages[name] for name in ("sent", "switched", "mirrored", "arrived")
    )
    out = [
        Check(
            "the network lost nothing, and each packet came from its own side",
            sent == switch == mirrored == arrived and stages["uplink"] == stages["from the gNB"],
            f"{sent:,} sent, {switch:,} switched, {mirrored:,} mirrored, {arrived:,} arrived; "
            f"{stages['uplink']:,} up, {stages['from the gNB']:,} from the gNB",
        ),
    ]
    if killed.startswith("ingest"):
        # From its death until it listens again nobody counts; what the sensor says it loses.
        return out
    read, dropped = stages["read"], stages["kernel drops"]
    return [
        *out,
        Check("no packet was lost", read == arrived and not dropped, f"{dropped:,} kernel drops"),
        Check(
            "packets add up",
            read + dropped == arrived and stages["decoded"] + stages["refused"] == read,
            f"{read:,} read + {dropped:,} dropped of {arrived:,}; "
            f"{stages['decoded']:,} decoded + {stages['refused']:,} refused",
        ),
    ]


def _rows(stages: Counts, killed: str) -> list[Check]:
    dropped = stages["records dropped"]
    out = [
        Check(
            "no flow was dropped",
            not dropped and not stages["flows evicted"],
            f"{dropped:,} records and {stages['early reports dropped']:,} early reports dropped, "
            f"{stages['flows evicted']:,} evicted",
        )
    ]
    if killed in ("", "deliver"):
        made, scored = stages["records made"], stages["records scored"]
        out.append(
            Check(
                "flows add up",
                made == scored + dropped + stages["records unsent"],
                f"{made:,} made, {scored:,} scored, {stages['records unsent']:,} unsent",
            )
        )
    return out


def _delivery(stages: Counts, delivery: Mapping[str, Counts], documents: int) -> list[Check]:
    out = [
        Check(
            f"route {route}: every stored event arrived",
            delivery[route]["arrived"] == delivery[route]["stored"],
            f"{delivery[route]['arrived']:,} of {delivery[route]['stored']:,}",
        )
        for route in ROUTES
    ]
    for route in ("A", "B"):
        said = delivery[route]
        out.append(
            Check(
                f"route {route}: every copy is marked",
                not said["unmarked_copies"] and not said["unknown"],
                f"{said['copies']:,} copies, {said['unmarked_copies']:,} without a mark, "
                f"{said['unknown']:,} that the store does not have",
            )
        )
    said = delivery["C"]
    out.append(
        Check(
            "route C: exactly once",
            documents == said["stored"] and not said["copies"] and not said["unknown"],
            f"{documents:,} documents, {said['copies']:,} written twice",
        )
    )
    poison, lost = stages["events set aside"], stages["events dropped"]
    out.append(
        Check(
            "no event was set aside or lost",
            not poison and not lost,
            f"{poison:,} set aside, {lost:,} dropped",
        )
    )
    return out
