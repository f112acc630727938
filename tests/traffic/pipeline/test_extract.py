"""From capture files to flow tables."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest
from scapy.contrib.gtp import GTP_U_Header
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.cli.helpers import exchange
from veilwatch.schema.flows import FLOW_COLUMNS, EndReason, FlowBatch, FlowTable, HeadBatch
from veilwatch.traffic.capture import PcapngWriter, PcapWriter
from veilwatch.traffic.flow import FlowMeter, MeterConfig
from veilwatch.traffic.flow.state import OUT_FLOWS
from veilwatch.traffic.packet_time import CONFIRM
from veilwatch.traffic.pipeline import FlowReader, extract

NS = 10**9
START = 1_700_000_000
Timed = tuple[float, Packet]


def client_hello(name: str) -> bytes:
    """What OpenSSL sends first to a server of that name."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def connection(port: int, name: str, seconds: Iterable[float]) -> list[Timed]:
    """A TLS client that sends a hello in two segments and then a record at each time."""
    forth = IP(src="10.0.0.1", dst="192.0.2.9") / TCP(sport=port, dport=443)
    back = IP(src="192.0.2.9", dst="10.0.0.1") / TCP(sport=443, dport=port)
    hello = client_hello(name)
    half = len(hello) // 2

    def sent(base: Packet, flags: str, seq: int, payload: bytes = b"") -> Packet:
        packet = base.copy()
        packet[TCP].flags, packet[TCP].seq = flags, seq
        return packet / Raw(payload) if payload else packet

    packets = [
        (0.0, sent(forth, "S", 99)),
        (0.1, sent(back, "SA", 499)),
        (0.2, sent(forth, "A", 100)),
        (0.3, sent(forth, "PA", 100, hello[:half])),
        (0.4, sent(forth, "PA", 100 + half, hello[half:])),
    ]
    sequence = 100 + len(hello)
    for second in seconds:
        packets.append((second, sent(forth, "PA", sequence, b"\x17\x03\x03\x00\x05abcde")))
        sequence += 10
    return packets


def lookup(port: int, name: str) -> list[Timed]:
    question = DNS(id=port, qd=DNSQR(qname=name))
    answer = DNS(id=port, qr=1, qd=DNSQR(qname=name), an=DNSRR(rrname=name, rdata="192.0.2.9"))
    forth = IP(src="10.0.0.1", dst="10.0.0.53") / UDP(sport=port, dport=53) / question
    back = IP(src="10.0.0.53", dst="10.0.0.1") / UDP(sport=53, dport=port) / answer
    return [(0.0, forth), (0.1, back)]


def write(path: Path, packets: Iterable[Timed], start: float = START) -> Path:
    with PcapngWriter(path) as writer:
        for second, packet in sorted(packets, key=lambda item: item[0]):
            writer.write(round((start + second) * NS), bytes(Ether() / packet))
    return path


def read(*paths: Path, config: MeterConfig | None = None) -> pl.DataFrame:
    with FlowReader(list(paths), config=config or MeterConfig()) as reader:
        return reader.read_all().frame


def later(packets: Iterable[Timed], seconds: float) -> list[Timed]:
    return [(second + seconds, packet) for second, packet in packets]


def mixed() -> list[Timed]:
    """TLS, DNS, GTP and packets of no flow, interleaved."""
    packets = [(0.05, ARP())]
    for k in range(10):
        packets += later(connection(5000 + k, f"host{k}.example", [0.5, 1, 2]), k / 7)
        packets += later(lookup(6000 + k, f"name{k}.example"), k / 9)
    tunnel = IP(src="10.9.0.1", dst="10.9.0.2") / UDP(sport=2152, dport=2152)
    inner = IP(src="10.45.0.2", dst="192.0.2.9") / ICMP()
    packets.append((1.0, tunnel / GTP_U_Header(teid=77, gtp_type=255) / inner))
    packets.append((1.1, IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1, dport=2)))
    return packets


def test_facts_are_joined_to_their_flows(tmp_path: Path) -> None:
    frame = read(write(tmp_path / "a.pcapng", mixed()))
    tls = frame.filter(pl.col("dst_port") == 443)
    assert dict(zip(tls["src_port"], tls["tls_sni"], strict=True)) == {
        5000 + k: f"host{k}.example" for k in range(10)
    }
    assert set(tls["service"]) == {"tls"}
    assert tls["ja4"].str.starts_with("t13d").all()
    dns = frame.filter(pl.col("dst_port") == 53)
    assert dict(zip(dns["src_port"], dns["dns_query"], strict=True)) == {
        6000 + k: f"name{k}.example" for k in range(10)
    }
    assert set(dns["dns_answers"]) == {1}
    assert set(dns["tls_sni"]) == {""}
    tunnelled = frame.filter(pl.col("gtp_depth") == 1).row(0, named=True)
    assert (tunnelled["src_ip"], tunnelled["outer_src_ip"]) == ("10.45.0.2", "10.9.0.1")
    assert (tunnelled["fwd_teid"], tunnelled["bwd_teid"], tunnelled["protocol"]) == (77, 0, 1)
    assert frame.filter(pl.col("ip_version") == 6)["src_ip"].to_list() == ["2001:db8::1"]
    assert frame.height == 22


def test_every_packet_is_accounted_for(tmp_path: Path) -> None:
    packets = mixed()
    with FlowReader([write(tmp_path / "a.pcapng", packets)]) as reader:
        frame = reader.read_all().frame
        assert reader.captures.packets == reader.balance["packets_read"] == len(packets)
        assert reader.balance["NOT_IP"] == 1
        assert (frame["fwd_packets"] + frame["bwd_packets"]).sum() == len(packets) - 1
        assert (reader.meter.live, reader.meter.evicted, reader.meter.heads_cut) == (0, 0, 0)


def test_columns_are_the_contract_in_its_order(tmp_path: Path) -> None:
    frame = read(write(tmp_path / "a.pcapng", mixed()))
    assert frame.columns == [column.name for column in FLOW_COLUMNS]
    FlowTable(frame).check()
    strings = [c.name for c in FLOW_COLUMNS if c.dtype == pl.String]
    assert frame.select(pl.col(strings).null_count()).sum_horizontal().item() == 0


def test_facts_reach_every_record_of_a_long_connection(tmp_path: Path) -> None:
    packets = connection(5000, "long.example", [30, 70, 100, 140]) + later(
        connection(5001, "short.example", []), 20
    )
    path = write(tmp_path / "a.pcapng", packets)
    frame = read(path, config=MeterConfig(active_timeout_s=60))
    long = frame.filter(pl.col("src_port") == 5000)
    assert long["end_reason"].to_list() == [EndReason.ACTIVE, EndReason.ACTIVE, EndReason.END]
    assert long["parent_id"].n_unique() == 1
    assert long["flow_id"].n_unique() == 3
    assert long["tls_sni"].to_list() == ["long.example"] * 3
    assert long["service"].to_list() == ["tls"] * 3
    assert long["fwd_packets"].to_list() == [5, 2, 1]
    assert frame.filter(pl.col("src_port") == 5001)["tls_sni"].to_list() == ["short.example"]


@pytest.mark.parametrize(("flows", "heads"), [(1, 1), (3, 100), (100, 1)])
def test_chunks_give_the_same_table(
    flows: int, heads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets = mixed() + later(mixed(), 500) + later(mixed(), 1000)
    paths = [
        write(tmp_path / f"{k}.pcapng", part) for k, part in enumerate((packets[:40], packets[40:]))
    ]
    config = MeterConfig(active_timeout_s=1)
    whole = read(*paths, config=config)
    monkeypatch.setattr(extract, "CHUNK_FLOWS", flows)
    monkeypatch.setattr(extract, "CHUNK_HEADS", heads)
    with FlowReader(paths, config=config) as reader:
        tables = list(reader)
    assert len(tables) >= whole.height // flows
    assert max(len(table) for table in tables) <= flows
    parts = pl.concat([table.frame for table in tables])
    assert parts.equals(whole)


def test_a_flood_is_read_in_bounded_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "CHUNK_FLOWS", 500)
    frame = bytes(Ether() / IP(src="10.0.0.1", dst="192.0.2.9") / UDP(sport=0, dport=9))
    with PcapWriter(tmp_path / "a.pcap") as writer:
        for port in range(12_000):
            writer.write(START * NS + port, frame[:34] + port.to_bytes(2, "big") + frame[36:])
    with FlowReader([tmp_path / "a.pcap"], config=MeterConfig(max_flows=2000)) as reader:
        sizes = [len(table) for table in reader]
        assert reader.meter.evicted == 10_000
    assert sum(sizes) == 12_000
    assert max(sizes) <= 500


def test_flows_that_one_packet_ends_are_taken_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time jumps: a second copy of all live flows would double the memory."""
    frame = bytes(Ether() / IP(src="10.0.0.1", dst="192.0.2.9") / UDP(sport=0, dport=9))
    count = 3 * OUT_FLOWS
    with PcapWriter(tmp_path / "a.pcap") as writer:
        for port in range(count):
            writer.write(START * NS + port, frame[:34] + port.to_bytes(2, "big") + frame[36:])
        for later in range(CONFIRM + 1):  # one stamp alone is not believed
            writer.write((START + 3600) * NS + later * 1_000_000, frame)
    monkeypatch.setattr(extract, "CHUNK_FLOWS", 500)
    taken: list[int] = []
    take = FlowMeter.take

    def watched(meter: FlowMeter) -> tuple[FlowBatch, HeadBatch]:
        taken.append(meter.pending)
        return take(meter)

    monkeypatch.setattr(FlowMeter, "take", watched)
    with FlowReader([tmp_path / "a.pcap"]) as reader:
        assert sum(len(table) for table in reader) == count + 1
    assert max(taken) <= OUT_FLOWS
    taken.clear()
    with FlowReader([tmp_path / "a.pcap"]) as reader:
        assert sum(len(batch) for _, batch in reader.packets()) == count + CONFIRM + 1
    assert max(taken) <= OUT_FLOWS


def test_a_capture_without_flows_gives_an_empty_table(tmp_path: Path) -> None:
    frame = read(write(tmp_path / "a.pcapng", [(0.0, ARP())]))
    assert frame.height == 0
    assert frame.columns == [column.name for column in FLOW_COLUMNS]


@pytest.mark.parametrize("kind", [str, Path])
def test_one_capture_needs_no_list(tmp_path: Path, kind: type) -> None:
    """A name is no sequence of letters."""
    path = write(tmp_path / "n3.pcapng", [])
    with FlowReader(kind(path)) as reader:
        assert [len(table) for table in reader] == [0]
        assert [report.name for report in reader.captures.files] == [str(path)]


@pytest.mark.parametrize("stray", [0.0, 4_102_444_800.0])
def test_a_bad_stamp_is_no_time_of_any_flow(tmp_path: Path, stray: float) -> None:
    """What comes after the meter (host windows, hours of files) never sees it."""

    def ask(host: int) -> Packet:
        return IP(src=f"10.0.0.{host}", dst="192.0.2.1") / UDP(sport=5000, dport=5001) / b"x"

    path = tmp_path / "a.pcap"
    with PcapWriter(path) as writer:
        for k in range(300):
            second = stray if k == 150 else START + k
            writer.write(round(second * NS), bytes(Ether() / ask(250 if k == 150 else k % 30)))
    frame = read(path)
    assert frame.height == 31
    assert frame["first_ns"].min() == round(START * NS)
    assert frame["last_ns"].max() == round((START + 299) * NS)


def test_a_closed_reader_gives_the_flow_table_back_and_keeps_its_counts(tmp_path: Path) -> None:
    path = tmp_path / "crowd.pcap"
    frame = bytearray(exchange("10.0.0.0", 40_000)[0])
    with PcapWriter(path) as writer:
        for k in range(6000):
            frame[28:30] = divmod(k, 250)  # the last bytes of the source address
            writer.write(START * NS + k * 1000, bytes(frame))
    with FlowReader(path, config=MeterConfig(max_flows=5000)) as reader:
        flows = sum(len(table) for table in reader)
        counted = reader.metering
        held = held_bytes(reader)
    assert flows == 6000 and counted["evicted_flows"] == 1000
    assert reader.metering == counted and reader.meter.evicted == 1000
    assert (
        reader.meter.live == 0 and held_bytes(reader) < held / 5
    )  # what flows are handed out by stays


def held_bytes(reader: FlowReader) -> int:
    return sum(array.nbytes for array in reader.meter._state)
