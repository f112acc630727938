"""What SMB and NFS messages ask a file server for, by the first bytes of a TCP payload.

Ransomware that encrypts a share shows a rhythm of reads, writes and renames that sizes and times
alone hardly tell. A message is counted where a TCP payload begins with one: of several in one
segment the first, of a compound chain the head. Only its first `LEAST` bytes are read, since
captures are often cut to headers + 64 bytes: SMB's TRANS2 and NFSv4's COMPOUND, whose operations
stand further in, are `other`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from veilwatch.jit import inner_kernel
from veilwatch.schema.flows import FILE_MESSAGES
from veilwatch.traffic.flow.extra import own_extra

LEAST: Final = 28
"""Payload bytes that tell a message, up to the procedure number of an RPC call. No whole message
of either protocol is shorter."""

OPEN, CLOSE, READ, WRITE, CHANGE, LIST, OTHER, ERROR, ENCRYPTED = range(len(FILE_MESSAGES))

NFS_PROGRAM: Final = 100_003
MORE_PROCESSING_REQUIRED: Final = 0xC0000016
"""An NT status like an error that every NTLM login passes through (MS-ERREF 2.3.1)."""


def _by_number(size: int, numbers: dict[int, tuple[int, ...]]) -> npt.NDArray[np.uint8]:
    kinds = np.full(size, OTHER, np.uint8)
    for kind, commands in numbers.items():
        kinds[list(commands)] = kind
    return kinds


_SMB2 = _by_number(
    0x13,
    {OPEN: (0x05,), CLOSE: (0x06,), READ: (0x08,), WRITE: (0x09,), LIST: (0x0E,), CHANGE: (0x11,)},
)
"""Commands of MS-SMB2 2.2.1; SET_INFO renames, deletes, and changes attributes."""

_SMB1 = _by_number(
    0x100,
    {
        OPEN: (0x02, 0x03, 0x0E, 0x0F, 0x2D, 0xA2),
        CLOSE: (0x04,),
        READ: (0x0A, 0x13, 0x1A, 0x2E),
        WRITE: (0x0B, 0x14, 0x1D, 0x2C, 0x2F),
        CHANGE: (0x00, 0x01, 0x06, 0x07, 0x09, 0x22, 0xA5),
        LIST: (0x81, 0x82, 0x83),
    },
)
"""Commands of MS-CIFS 2.2.2.1."""

_NFS3 = _by_number(
    22,
    {OPEN: (8,), READ: (6,), WRITE: (7,), CHANGE: (2, *range(9, 16)), LIST: (16, 17)},
)
"""Procedures of RFC 1813 cl. 3.3; NFSv3 knows no open, but creates."""


@inner_kernel
def big(buffer: Any, at: Any) -> Any:
    """Return 32 bits in network order."""
    return (
        np.int64(buffer[at]) << 24
        | np.int64(buffer[at + 1]) << 16
        | np.int64(buffer[at + 2]) << 8
        | np.int64(buffer[at + 3])
    )


@inner_kernel
def little(buffer: Any, at: Any) -> Any:
    """Return 32 bits, lowest byte first."""
    return (
        np.int64(buffer[at])
        | np.int64(buffer[at + 1]) << 8
        | np.int64(buffer[at + 2]) << 16
        | np.int64(buffer[at + 3]) << 24
    )


@inner_kernel
def is_error(status: Any) -> Any:
    """Whether an NT status has the severity of an error (MS-ERREF 2.3)."""
    return status >> 30 == 3 and status != MORE_PROCESSING_REQUIRED


@inner_kernel
def smb2(buffer: Any, at: Any) -> Any:
    """Return the kind of an SMB 2 or 3 message in clear (MS-SMB2 2.2.1), -1 uncounted."""
    if buffer[at + 16] & 1:  # SMB2_FLAGS_SERVER_TO_REDIR
        return ERROR if is_error(little(buffer, at + 8)) else -1
    command = np.int64(buffer[at + 12]) | np.int64(buffer[at + 13]) << 8
    return np.int64(_SMB2[command]) if command < len(_SMB2) else -1


@inner_kernel
def smb1(buffer: Any, at: Any) -> Any:
    """Return the kind of an SMB 1 message (MS-CIFS 2.2.3.1), -1 uncounted."""
    if buffer[at + 9] & 0x80:  # SMB_FLAGS_REPLY; SMB_FLAGS2_NT_STATUS says what a status is
        failed = buffer[at + 11] & 0x40 != 0 and is_error(little(buffer, at + 5))
        return ERROR if failed else -1
    return np.int64(_SMB1[buffer[at + 4]])


@inner_kernel
def nfs(buffer: Any, at: Any) -> Any:
    """Return the kind of an NFS call behind its record mark (RFC 5531 cl. 9, 11), -1 uncounted."""
    if big(buffer, at + 8) != 0 or big(buffer, at + 12) != 2:  # CALL, RPC version
        return -1
    if big(buffer, at + 16) != NFS_PROGRAM:
        return -1
    procedure = big(buffer, at + 24)
    if big(buffer, at + 20) == 3 and procedure < len(_NFS3):
        return np.int64(_NFS3[procedure])
    return OTHER


@inner_kernel
def count_file_message(flow: Any, extras: Any, buffer: Any, packet: Any) -> Any:
    """Count the message that a TCP payload begins with.

    Almost every other payload is told by its first byte: a session message of SMB (RFC 1001)
    has 0 there, and so has an RPC record below 16 MiB but for the bit of its last fragment.
    """
    at = packet.payload_offset
    if packet.payload_captured < LEAST or buffer[at] & 0x7F != 0:
        return
    kind = -1
    if buffer[at] != 0:
        kind = nfs(buffer, at)
    elif buffer[at + 5] == 0x53 and buffer[at + 6] == 0x4D and buffer[at + 7] == 0x42:  # SMB
        if buffer[at + 4] == 0xFE:
            kind = smb2(buffer, at + 4)
        elif buffer[at + 4] == 0xFF:
            kind = smb1(buffer, at + 4)
        elif buffer[at + 4] == 0xFD:  # a TRANSFORM_HEADER, MS-SMB2 2.2.41
            kind = ENCRYPTED
    if kind >= 0:
        own_extra(flow, extras).file_messages[kind] += np.uint32(1)
