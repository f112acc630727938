"""Any bytes as GTP-C and PFCP messages between two nodes: nothing raises, all stays bounded."""

from __future__ import annotations

from tests.traffic.subscriber.build import block

from fuzz.coverage import guide_by
from fuzz.seeds import CONTROL
from veilwatch.traffic.subscriber import (
    Directory,
    KeyRing,
    control,
    directory,
    elements,
    gtpv1,
    gtpv2,
    pfcp,
    procedures,
    session_store,
    values,
)

guide_by(control, directory, elements, gtpv1, gtpv2, pfcp, procedures, session_store, values)
PORTS = (2123, 8805)
NODES = ("192.0.2.1", "192.0.2.2")
SEEDS = CONTROL


def one(data: bytes) -> None:
    """Messages, each behind its direction and port, and its length in two bytes."""
    directory = Directory(KeyRing(bytes(32)))
    count = 0
    while len(data) > 3 and count < 16:
        src, dst = NODES if data[0] & 1 else NODES[::-1]
        size = data[1] | data[2] << 8
        message, data = data[3 : 3 + size], data[3 + size :]
        directory.observe(block((src, dst, PORTS[data[0] & 1 if data else 0], count, message)))
        count += 1
    report = directory.report()
    assert len(report.sessions) <= 16 * 64
    assert len(directory.bindings()) <= 16 * 1024
