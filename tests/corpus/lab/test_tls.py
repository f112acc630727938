"""Handshakes are real, and their sizes repeat although their bytes do not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.profile import CertificateKind
from veilwatch.corpus.lab.tls import Connection, Flight, TlsServer, certify_server, record_lengths

DAY = datetime(2025, 3, 1, tzinfo=UTC)


def server(kind: CertificateKind, version: str, key: str = "x") -> TlsServer:
    return certify_server(
        "a.example", certificate=kind, version=version, alpn=("h2",), day=DAY, draw=Draw(key)
    )


def sizes(flights: list[Flight]) -> list[tuple[bool, list[int]]]:
    return [(flight.uplink, record_lengths(flight.data)) for flight in flights]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("kind", ["public-ec", "public-rsa", "private-ca", "self-signed"])
def test_sizes_of_handshakes_repeat_and_random_bytes_do_not(
    kind: CertificateKind, version: str
) -> None:
    runs = [Connection(server(kind, version), "wide", alpn=("h2",)).handshake() for _ in range(6)]
    assert len({str(sizes(run)) for run in runs}) == 1
    assert len({run[0].data for run in runs}) == 6


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_session_is_resumed_with_a_shorter_handshake(version: str) -> None:
    peer = server("public-rsa", version)
    first = Connection(peer, "nist")
    full = first.handshake()
    again = Connection(peer, "nist", session=first.session)
    short = again.handshake()
    assert again.resumed and not first.resumed
    assert len(short[1].data) < len(full[1].data) / 2


def test_bulk_data_become_records_of_the_wanted_size() -> None:
    connection = Connection(server("public-ec", "1.3"), "mobile")
    connection.handshake()
    lengths = record_lengths(connection.send(True, 10_000, record=4096))
    assert lengths == [4096 + 17, 4096 + 17, 10_000 - 8192 + 17]  # content type and tag
    assert record_lengths(connection.close(True)) == [19]
