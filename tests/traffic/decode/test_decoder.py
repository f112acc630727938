"""The decoder's own promises: rows are reused without traces, and the balance adds up."""

from __future__ import annotations

import numpy as np
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from tests.traffic.decode.frames import Frame, as_block, assert_as_reference
from veilwatch.schema.packets import BLOCK_RECORDS, RECORD_DTYPE, RawBlock, Status
from veilwatch.traffic.decode import Decoder
from veilwatch.traffic.decode.counters import INFORMATIVE, SLOTS, STATUS_SLOTS

TCP_FRAME = Frame(bytes(Ether() / Dot1Q(vlan=4) / IP() / TCP(flags="S", options=[("MSS", 1400)])))
ECHO = bytes(
    Ether() / IP() / UDP(dport=2152) / Raw(b"\x32\x01\x00\x04\0\0\0\0\0\x01\0\0")
)  # fmt: skip


def test_a_row_keeps_nothing_of_the_block_before() -> None:
    decoder = Decoder()
    decoder.decode(as_block([TCP_FRAME] * BLOCK_RECORDS))
    assert_as_reference(as_block([Frame(b""), Frame(bytes(Ether() / ARP()))]), decoder)


def test_batch_has_the_rows_and_the_buffer_of_its_block() -> None:
    block = as_block([TCP_FRAME] * 3)
    batch = Decoder().decode(block)
    assert len(batch) == 3
    assert batch.buffer is block.buffer
    assert batch.packets["number"].tolist() == [1, 2, 3]


def test_an_empty_block_is_fine() -> None:
    block = RawBlock(np.zeros(0, np.uint8), np.zeros(0, RECORD_DTYPE))
    decoder = Decoder()
    assert len(decoder.decode(block)) == 0
    assert decoder.balance["packets_read"] == 0


def test_balance_accounts_for_every_packet() -> None:
    # Arrange
    frames = [TCP_FRAME, TCP_FRAME, Frame(ECHO), Frame(b""), Frame(b"x" * 40, link=190)]
    decoder = Decoder()

    # Act
    for _ in range(3):
        decoder.decode(as_block(frames))

    # Assert
    balance = decoder.balance
    assert balance["packets_read"] == 15 == sum(balance[status.name] for status in Status)
    assert (balance["OK"], balance["EMPTY"], balance["UNSUPPORTED_LINK"]) == (9, 3, 3)
    assert (balance["vlan_tagged"], balance["gtp_echo_request"], balance["gtp_false"]) == (6, 3, 0)


def test_every_counter_has_its_name() -> None:
    names = [name for name in Decoder().balance if name != "packets_read"]
    assert names == [status.name for status in Status] + list(INFORMATIVE)
    assert len(names) == SLOTS
    assert [int(status) for status in Status] == list(range(STATUS_SLOTS))
