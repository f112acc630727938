"""What the decoder counts beside the statuses. One int64 slot for each name."""

from __future__ import annotations

from typing import Final

from veilwatch.schema.packets import Status

STATUS_SLOTS: Final = len(Status)
"""Slots 0 … STATUS_SLOTS - 1 count packets by `Status`."""

VLAN_TAGGED: Final = STATUS_SLOTS
FIRST_FRAGMENT: Final = STATUS_SLOTS + 1
GTP_G_PDU: Final = STATUS_SLOTS + 2
GTP_ECHO_REQUEST: Final = STATUS_SLOTS + 3
GTP_ECHO_RESPONSE: Final = STATUS_SLOTS + 4
GTP_ERROR_INDICATION: Final = STATUS_SLOTS + 5
GTP_END_MARKER: Final = STATUS_SLOTS + 6
GTP_OTHER: Final = STATUS_SLOTS + 7
GTP_NOT_IP: Final = STATUS_SLOTS + 8
GTP_FALSE: Final = STATUS_SLOTS + 9

INFORMATIVE: Final = (
    "vlan_tagged",  # packets with a VLAN identifier (`vlan` not 0)
    "first_fragments",  # packets whose innermost IP packet is a first fragment
    "gtp_g_pdu",  # GTP-U messages by type; GTP-U inside GTP-U counts each
    "gtp_echo_request",
    "gtp_echo_response",
    "gtp_error_indication",
    "gtp_end_marker",
    "gtp_other",
    "gtp_not_ip",  # G-PDUs that carry no IP packet: left as ordinary UDP
    "gtp_false",  # other datagrams on port 2152 that are not GTP-U: left as ordinary UDP
)
"""Names of the slots after the statuses, in order."""

SLOTS: Final = STATUS_SLOTS + len(INFORMATIVE)
