"""Small corpora of captures on disk that show their label, and detectors that cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from veilwatch.corpus.manifest import CaptureEntry, write_manifest
from veilwatch.traffic.capture import PcapngWriter

NS = 10**9
START = 1_700_000_000 * NS


def _connection(rng: np.random.Generator, *, client: str, size: int, ttl: int) -> list[bytes]:
    """One request and one answer over TCP, and a datagram beside them."""
    port = int(rng.integers(20_000, 60_000))
    up, down = IP(src=client, dst="192.0.2.9", ttl=ttl), IP(src="192.0.2.9", dst=client, ttl=55)
    here, there = {"sport": port, "dport": 8443}, {"sport": 8443, "dport": port}
    answer = int(rng.integers(200, 1400))
    frames = [
        up / TCP(**here, flags="S", seq=100),
        down / TCP(**there, flags="SA", seq=500, ack=101),
        up / TCP(**here, flags="PA", seq=101, ack=501) / Raw(rng.bytes(size)),
        down / TCP(**there, flags="PA", seq=501, ack=101 + size) / Raw(rng.bytes(answer)),
        up / TCP(**here, flags="PA", seq=101 + size, ack=501 + answer) / Raw(rng.bytes(size)),
        up / TCP(**here, flags="FA", seq=101 + 2 * size, ack=501 + answer),
        up / UDP(sport=port, dport=9000) / Raw(rng.bytes(size)),
    ]
    return [bytes(frame) for frame in frames]


def capture_corpus(
    folder: Path,
    *,
    captures: int = 24,
    flows: int = 6,
    ttl: Sequence[int] = (64, 64),
    columns: dict[str, Sequence[str]] | None = None,
    hidden: bool = False,
    services: int = 0,
) -> Path:
    """Write captures of which every other one is malicious, and their manifest.

    Malicious requests are larger. With `hidden` they are not, so that only `ttl` (of benign and
    malicious clients) can tell. `columns` replaces columns of the manifest, one value a capture.
    The first client of benign captures asks so many further `services`, as people do.
    """
    entries = []
    for k in range(captures):
        rng = np.random.default_rng(k)
        malicious = bool(k % 2)
        name = f"{'malicious' if malicious else 'benign'}/{k}.pcapng"
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        when = START + k * 86_400 * NS
        with PcapngWriter(folder / name, link=101) as writer:
            for turn in range(flows):
                size = int(rng.normal(700 if malicious and not hidden else 300, 60))
                packets = _connection(
                    rng, client=f"10.0.{k}.{turn + 1}", size=size, ttl=ttl[malicious]
                )
                for packet in packets:
                    when += int(rng.integers(1, 200)) * 1_000_000
                    writer.write(when, packet)
            for service in range(0 if malicious else services):
                asked = IP(src=f"10.0.{k}.1", dst=f"198.51.100.{service + 1}", ttl=ttl[0])
                when += int(rng.integers(1, 200)) * 1_000_000
                writer.write(when, bytes(asked / UDP(sport=5000, dport=443) / Raw(rng.bytes(200))))
        fields: dict[str, Any] = {
            "family": f"family-{k % 8 // 2}" if malicious else "",
            "group": f"group-{k // 2}-{k % 2}",
            "source_repo": f"source-{k % 8}",
            "publisher": f"author-{k // 2 % 4}",
            "capture_start": str(date(2024, 1, 1) + timedelta(days=k)),
        }
        fields |= {column: values[k] for column, values in (columns or {}).items()}
        entries.append(
            CaptureEntry(
                file=folder / name,
                name=name,
                label="malicious" if malicious else "benign",
                is_ransomware=malicious,
                **fields,
            )
        )
    manifest = folder / "MANIFEST.csv"
    write_manifest(manifest, entries)
    return manifest
