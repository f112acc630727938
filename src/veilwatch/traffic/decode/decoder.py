"""The way in: raw blocks in, packet batches out, every packet accounted for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from veilwatch.schema.packets import BLOCK_RECORDS, PACKET_DTYPE, PacketBatch, RawBlock, Status
from veilwatch.traffic.decode.counters import INFORMATIVE, SLOTS, STATUS_SLOTS
from veilwatch.traffic.decode.kernel import decode_block
from veilwatch.traffic.decode.steps import port_table


class Decoder:
    """Decodes blocks of records and keeps the balance of what became of them.

    Parameters
    ----------
    gtp_ports
        UDP ports at which GTP-U is looked for beside 2152.

    Examples
    --------
    >>> from veilwatch.schema.packets import RECORD_DTYPE, RawBlock
    >>> decoder = Decoder()
    >>> block = RawBlock(np.zeros(0, np.uint8), np.zeros(2, RECORD_DTYPE))
    >>> len(decoder.decode(block))
    2
    >>> decoder.balance["packets_read"], decoder.balance["EMPTY"]
    (2, 2)
    """

    def __init__(self, gtp_ports: Sequence[int] = ()) -> None:
        self._packets = np.zeros(BLOCK_RECORDS, PACKET_DTYPE)
        self._counters = np.zeros(SLOTS, np.int64)
        self._tunnels = port_table(gtp_ports)

    def decode(self, block: RawBlock, packets: npt.NDArray[np.void] | None = None) -> PacketBatch:
        """Decode one block.

        Parameters
        ----------
        block
            At most `BLOCK_RECORDS` records, of any mixture of link types.
        packets
            Array of `PACKET_DTYPE` to fill, at least as long as the block; None for the decoder's
            own.

        Returns
        -------
        PacketBatch
            One row per record, refused ones included. Its rows are valid until the array is
            filled again, the decoder's own by the next call; its buffer for as long as the block's.
        """
        packets = (self._packets if packets is None else packets)[: len(block)]
        packets.view(np.uint8)[:] = 0
        decode_block(block.buffer, block.records, packets, self._counters, self._tunnels)
        return PacketBatch(block.buffer, packets)

    @property
    def balance(self) -> dict[str, int]:
        """What became of the packets so far.

        `packets_read` equals the sum over the names of `Status` (upper case); the lower-case
        names after them are `counters.INFORMATIVE` and part of no sum.
        """
        counts = self._counters.tolist()
        by_status = {status.name: counts[status] for status in Status}
        informative = dict(zip(INFORMATIVE, counts[STATUS_SLOTS:], strict=True))
        return {"packets_read": sum(by_status.values()), **by_status, **informative}
