"""The card of the model that ships with the package, from its own manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from veilwatch.corpus.manifest import CaptureEntry
from veilwatch.learning.models import ModelManifest

LEVELS: Final = {
    "flow": "all flows",
    "flow_tls": "TLS and QUIC flows",
    "used_host_x1": "hosts that people use: captures merged with one benign host",
    "used_host_x3": "… with three",
    "capture_with_windows": "captures as they were recorded",
}
"""What is shown of the held-out figures, used hosts before sandboxes."""

INTRODUCTION: Final = """# The model in the box

`veilwatch detect FILE` and `veilwatch watch` use it where no other model is named. It was made by
`make model CORPUS=MANIFEST.csv`, which gives the same bytes on every run; this page was written by
the same command.

## What it is for

A first look at traffic, before anybody has trained a model on captures of their own network. It
tells hosts whose encrypted traffic, name lookups, file sharing or scans look like those of malware
that others recorded, and says why. It decides about hosts; single flows that it alerts are leads.

**Who should not use it.** Nobody should act on its word alone: block, wipe or accuse. It was never
measured on traffic of a mobile core or of a hospital, as no public captures of either hold malware.
Administration of Windows networks (directory, remote calls, file shares) looks to it like an
intruder more often than anything else: see the table of false alarms. `veilwatch site learn` sets
its thresholds by the traffic of one's own network, and should be the first step.
"""


def model_card(manifest: ModelManifest, entries: Sequence[CaptureEntry]) -> str:
    """Return the page."""
    corpus, hosts = manifest.corpus, manifest.hosts
    assert hosts is not None, "the model of the package decides about hosts"
    publishers = {label: Counter[str]() for label in ("malicious", "benign")}
    licences: Counter[str] = Counter()
    for entry in entries:
        publishers[entry.label][entry.publisher] += 1
        licences[entry.extra.get("licence", "") or "none stated"] += 1
    held_out = manifest.held_out
    parts = [
        INTRODUCTION,
        "## What it learned from\n",
        f"{corpus.malicious_captures} malicious and {corpus.benign_captures} benign captures of "
        f"{len(publishers['malicious'])} and {len(publishers['benign'])} authors, all of them "
        "published by others; none is part of this project, and the model holds no packet of any. "
        "SHA-256 of each stands in `model.json`.\n",
        "| captures | authors, most captures first |\n|---|---|",
        *(
            f"| {label} | {', '.join(f'{name} ({n})' for name, n in names.most_common(8))} … |"
            for label, names in publishers.items()
        ),
        "\nLicences of the captures: "
        + ", ".join(f"{name} ({n})" for name, n in licences.most_common(8))
        + ".\n",
        f"Hosts that people use are made up: {hosts.blends.malicious:,} blends of malicious "
        f"captures and {hosts.blends.benign:,} of benign ones with the busiest hosts of "
        f"{hosts.blends.used_hosts} benign captures. The traffic is real, that it met on one host "
        "is not.\n",
        "## What it does on what it never saw\n",
        "Each capture was scored by parts of the model that had not learned from its group "
        "(source, family and day). What happens with whole authors held out, the harder question, "
        "stands in [evaluation](evaluation.md).\n",
        _levels(held_out),
        "\n## Families\n",
        _families(held_out["families"]),
        "\n## Where it fails\n",
        "- False alarms by kind of traffic, at its own threshold:\n",
        _kinds(held_out.get("benign_kinds", {})),
        "",
        "- Web shells, attacks in a directory and malware over plain HTTP are found least: what it "
        "knows best is encrypted traffic of hosts.",
        "- Malware in the corpus is mostly of 2016 to 2022, benign traffic of 2024 to 2026.",
        "- Server names are not believed: malware may ask for any. DNS over TLS, HTTPS or TCP "
        "shows it no names at all.",
        "",
    ]
    return "\n".join(parts)


def _levels(held_out: dict[str, Any]) -> str:
    rows = [
        "| level | malicious, benign | AUC | found at 1 % FPR | at its own threshold | FPR there |",
        "|---|---|---|---|---|---|",
    ]
    for name, words in LEVELS.items():
        level = held_out[name]
        rows.append(
            f"| {words} | {level['n_positive']:,}, {level['n_negative']:,} "
            f"| {level['roc_auc']:.3f} | {level['detection_rate_at_fpr']['0.01']:.3f} "
            f"| {level['detection_rate']:.3f} | {level['false_positive_rate']:.4f} |"
        )
    return "\n".join(rows)


def _families(families: dict[str, Any]) -> str:
    rows = ["| family | ransomware | captures | found |", "|---|---|---|---|"]
    for name, figures in sorted(families.items(), key=lambda item: -item[1]["n"]):
        if figures["n"] >= 4:
            kind = "yes" if figures["is_ransomware"] else ""
            rows.append(f"| {name} | {kind} | {figures['n']} | {figures['detection_rate']:.2f} |")
    few = [figures for figures in families.values() if figures["n"] < 4]
    found = sum(figures["n"] * figures["detection_rate"] for figures in few)
    rows.append(
        f"| {len(few)} others | | {sum(f['n'] for f in few)} | "
        f"{found / max(sum(f['n'] for f in few), 1):.2f} |"
    )
    return "\n".join(rows)


def _kinds(kinds: dict[str, Any]) -> str:
    rows = ["  | kind | captures | alerted |", "  |---|---|---|"]
    for name, figures in sorted(kinds.items(), key=lambda item: -item[1]["alerted"]):
        rows.append(f"  | {name} | {figures['n']} | {figures['alerted']} |")
    return "\n".join(rows)
