"""The TCP model against the rules of TCP: no byte is lost, none is invented."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from veilwatch.corpus.lab.draw import Draw
from veilwatch.corpus.lab.packets import ACK, FIN, RST, SYN, Packet
from veilwatch.corpus.lab.tcp import TcpConnection
from veilwatch.corpus.lab.world import Server, User, make_server, make_user


def pair(loss: float) -> tuple[User, Server]:
    draw = Draw("pair")
    user, server = make_user(draw), make_server(draw, inside=False)
    user.access = user.access._replace(loss=loss / 2)
    return user, replace(server, loss=loss / 2)


def segments(packets: list[Packet], uplink: bool) -> list[tuple[int, int, int, bytes]]:
    """Return sequence number, acknowledgement, flags and payload of one direction."""
    found = []
    for packet in packets:
        if packet.uplink == uplink:
            seq, ack, offset, flags = struct.unpack("!IIBB", packet.data[24:34])
            found.append((seq, ack, flags, packet.data[20 + (offset >> 4) * 4 :]))
    return found


def stream(found: list[tuple[int, int, int, bytes]]) -> bytes:
    """Put a direction's payload together by sequence number; fail on a hole."""
    start = next(seq for seq, _, flags, _ in found if flags & SYN) + 1
    data = bytearray()
    for seq, _, _, payload in sorted(((s - start) % 2**32, a, f, p) for s, a, f, p in found if p):
        assert seq <= len(data), "hole"
        data[seq : seq + len(payload)] = payload
    return bytes(data)


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("uplink", [True, False])
def test_the_probe_can_put_together_what_was_sent(loss: float, uplink: bool) -> None:
    user, server = pair(loss)
    draw = Draw("payload")
    sent = [draw.octets(size) for size in (1, 5000, 120_000, 40)]
    connection = TcpConnection(user, server, 443, 0.0, Draw(loss))
    connection.open()
    for data in sent:
        connection.send(uplink, data, 0.05)
        connection.send(not uplink, b"ok" * 30)
    connection.close("fin")
    packets = connection.packets(10**18)
    assert stream(segments(packets, uplink)) == b"".join(sent)
    assert [p.ts_ns for p in packets] == sorted(p.ts_ns for p in packets)
    payloads = sum(len(s[3]) for s in segments(packets, uplink))
    retransmitted = payloads - len(b"".join(sent))
    assert retransmitted == 0 if loss == 0 else retransmitted > 0


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_acknowledgements_never_run_ahead_of_the_data(loss: float) -> None:
    user, server = pair(loss)
    connection = TcpConnection(user, server, 443, 0.0, Draw("a"))
    connection.open()
    connection.send(True, bytes(80_000))
    connection.send(False, bytes(80_000))
    connection.close("fin")
    end = dict.fromkeys((True, False), 0)  # what each direction has sent so far
    for packet in connection.packets(0):
        seq, ack, offset, flags = struct.unpack("!IIBB", packet.data[24:34])
        length = len(packet.data) - 20 - (offset >> 4) * 4 + bool(flags & (SYN | FIN))
        if flags & ACK:
            assert (end[not packet.uplink] - ack) % 2**32 < 2**31
        if flags & SYN or (seq + length - end[packet.uplink]) % 2**32 < 2**31:
            end[packet.uplink] = (seq + length) % 2**32


def test_refused_unanswered_and_reset_connections() -> None:
    user, server = pair(0.0)
    refused = TcpConnection(user, server, 445, 0.0, Draw("r"))
    refused.refuse()
    assert [s[2] for s in segments(refused.packets(0), False)] == [RST | ACK]
    silent = TcpConnection(user, server, 445, 0.0, Draw("s"))
    silent.knock(retries=2)
    tries = silent.packets(0)
    assert {s[2] for s in segments(tries, True)} == {SYN}
    assert [round((p.ts_ns - tries[0].ts_ns) / 1e9, 1) for p in tries] == [0.0, 1.0, 3.0]
    reset = TcpConnection(user, server, 443, 0.0, Draw("t"))
    reset.open()
    reset.close("rst")
    assert segments(reset.packets(0), True)[-1][2] & RST


def test_keep_alive_bridges_idle_time() -> None:
    user, server = pair(0.0)
    connection = TcpConnection(user, server, 443, 0.0, Draw("k"), keep_alive=30)
    connection.open()
    connection.send(True, b"x" * 100)
    connection.send(True, b"x" * 100, pause=100)
    found = segments(connection.packets(0), True)
    sequence = [seq for seq, _, _, payload in found if payload]
    probes = [s for s in found if s[0] == (sequence[0] + 99) % 2**32 and not s[3]]
    assert len(probes) == 3
