"""What a flow says before it goes dark: TLS, QUIC, DNS, fingerprints, and the service it speaks.

Bytes in, columns out: nothing here reads a file or a socket.
"""

from veilwatch.traffic.handshake.facts import EMPTY, FACT_COLUMNS, fill_facts, name_dtls, read_heads
from veilwatch.traffic.handshake.services import SERVICES, recognise_services

__all__ = [
    "EMPTY",
    "FACT_COLUMNS",
    "SERVICES",
    "fill_facts",
    "name_dtls",
    "read_heads",
    "recognise_services",
]
