"""Any bytes as both directions of a handshake: TLS, certificates, QUIC, DNS, services."""

from __future__ import annotations

import numpy as np

from fuzz.coverage import guide_by
from fuzz.seeds import HANDSHAKES
from veilwatch.schema.flows import FLOW_RECORD_DTYPE, HEAD_DTYPE, PREFIX_BYTES, HeadBatch
from veilwatch.traffic.handshake import (
    certificate,
    dns,
    facts,
    quic,
    quic_frames,
    quic_hello,
    quic_initial,
    recognise_services,
    text,
    tls,
)

guide_by(certificate, dns, facts, quic, quic_frames, quic_hello, quic_initial, text, tls)
PORTS = ((6, 443), (17, 443), (17, 53))
SEEDS = HANDSHAKES


def one(data: bytes) -> None:
    """First byte: protocol and port; two more: where the second direction begins."""
    if len(data) < 3:
        return
    protocol, port = PORTS[data[0] % len(PORTS)]
    streams = data[3:]
    cut = min(data[1] | data[2] << 8, len(streams))
    rows = np.zeros(1, HEAD_DTYPE)
    rows["protocol"], rows["src_port"], rows["dst_port"] = protocol, 40_000, port
    rows["start"] = [[0, cut]]
    rows["length"] = [[cut, len(streams) - cut]]
    told = facts.facts_of(HeadBatch(np.frombuffer(streams or b"\0", np.uint8), rows), 0)
    assert told.keys() <= facts.EMPTY.keys()
    record = np.zeros(1, FLOW_RECORD_DTYPE)
    record["protocol"], record["dst_port"] = protocol, port
    prefix = np.frombuffer(streams[:PREFIX_BYTES], np.uint8)
    record["start"]["prefix"][0, 0, : len(prefix)] = prefix
    record["way"]["prefix_used"][0, 0] = len(prefix)
    recognise_services(record)
