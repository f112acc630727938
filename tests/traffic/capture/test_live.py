"""Live capture in a network namespace: what goes in comes out, and what is lost is counted."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from tests.netns import Wire
from veilwatch.errors import CaptureError, VeilwatchError
from veilwatch.schema.captures import LiveReport
from veilwatch.schema.packets import RawBlock
from veilwatch.traffic.capture import PcapWriter
from veilwatch.traffic.capture.live import LiveCapture, LiveSettings, open_live, open_taps
from veilwatch.traffic.capture.live import ring as ring_module
from veilwatch.traffic.capture.live import tap as tap_module
from veilwatch.traffic.capture.live.offload import joining_offloads

MAC = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
PATIENCE_S = 20.0


def datagrams(count: int, size: int = 30) -> list[bytes]:
    base = Ether(**MAC) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2)
    frame = bytes(base / Raw(bytes(size)))
    return [frame[:-4] + k.to_bytes(4, "big") for k in range(count)]


def write(path: Path, frames: list[bytes]) -> Path:
    with PcapWriter(path) as writer:
        for k, frame in enumerate(frames):
            writer.write(1_700_000_000_000_000_000 + k * 10_000, frame)
    return path


class Notes:
    """Keep what is noted."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def start(self, task: str, total: float | None = None) -> None:
        self.said.append(task)

    def advance(self, amount: float = 1.0) -> None:
        pass

    def note(self, message: str) -> None:
        self.said.append(message)


def frames_of(block: RawBlock) -> list[bytes]:
    return [
        block.buffer[int(row["offset"]) : int(row["offset"]) + int(row["captured"])].tobytes()
        for row in block.records
    ]


def take(blocks: Iterator[RawBlock], until: Callable[[list[bytes]], bool]) -> list[bytes]:
    """Frames from a capture until there are enough of them."""
    found: list[bytes] = []
    deadline = time.monotonic() + PATIENCE_S
    while not until(found):
        assert time.monotonic() < deadline, f"only {len(found)} frames came"
        found += frames_of(next(blocks))
    return found


def listen(capture: LiveCapture) -> Iterator[RawBlock]:
    """Begin to capture; what is sent from now on is seen."""
    blocks = iter(capture)
    assert len(next(blocks)) == 0
    return blocks


def live(capture: LiveCapture) -> LiveReport:
    (report,) = capture.report.files
    assert report.live is not None
    return report.live


@pytest.fixture(params=["ring", "received one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to get packets; the second as on a kernel that refuses the ring."""
    if request.param != "ring":

        def refuse(*_: object) -> int:
            raise OSError(92, "Protocol not available")

        monkeypatch.setattr(tap_module, "ask_for_ring", refuse)
    return str(request.param)


def open_far(there: Wire, settings: LiveSettings | None = None, **kwargs: Any) -> LiveCapture:
    with there.entered():
        return open_live(there.far, settings or LiveSettings(ring_mb=8), **kwargs)


def test_frames_arrive_as_they_were_sent(
    wire: Wire,
    way: str,
    tmp_path: Path,
) -> None:
    sent = datagrams(3000) + datagrams(20, 8900)
    with open_far(wire) as capture:
        blocks = listen(capture)
        began = time.time_ns()
        wire.replay(write(tmp_path / "sent.pcap", sent), "--pps", "20000")
        got = take(blocks, lambda found: len(found) >= len(sent))
        capture.stop()
        assert [len(block) for block in blocks if len(block)] == []
    assert got == sent
    (report,) = capture.report.files
    assert report.format == "live" and report.interfaces == [1] and not report.fault
    assert report.packets == live(capture).received == len(sent)
    assert report.bytes == sum(map(len, sent))
    assert live(capture).dropped == live(capture).freezes == 0
    assert (live(capture).ring_bytes == 8 * 2**20) == (way == "ring")
    assert report.first_ns is not None and report.last_ns is not None
    assert began <= report.first_ns <= report.last_ns <= time.time_ns()


def test_vlan_tags_come_back(
    wire: Wire,
    way: str,
    tmp_path: Path,
) -> None:
    inner = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(b"x" * 30)
    link = Ether(**MAC)
    sent = [
        bytes(link / Dot1Q(vlan=42, prio=5) / inner),
        bytes(link / Dot1AD(vlan=7) / Dot1Q(vlan=42) / inner),
        bytes(link / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / inner),
        bytes(link / inner),
    ]
    with open_far(wire) as capture:
        blocks = listen(capture)
        wire.replay(write(tmp_path / "sent.pcap", sent))
        assert take(blocks, lambda found: len(found) >= len(sent)) == sent


def test_what_nobody_reads_is_counted(
    wire: Wire,
    way: str,
    tmp_path: Path,
) -> None:
    sent = datagrams(6000, 1400)
    with open_far(wire, LiveSettings(ring_mb=1)) as capture:
        blocks = listen(capture)
        wire.replay(write(tmp_path / "sent.pcap", sent), "--topspeed")
        capture.stop()
        got = [frame for block in blocks for frame in frames_of(block)]
    assert got == sent[: len(got)]
    assert 0 < len(got) < len(sent)
    assert live(capture).received == len(got)
    assert live(capture).dropped == len(sent) - len(got)
    assert (live(capture).freezes > 0) == (way == "ring")


def test_capture_length(
    wire: Wire,
    way: str,
    tmp_path: Path,
) -> None:
    with open_far(wire, LiveSettings(ring_mb=1, snaplen=128)) as capture:
        assert any("the first 128 are captured" in text for text in live(capture).warnings)
        blocks = iter(capture)
        assert len(next(blocks)) == 0
        wire.replay(write(tmp_path / "sent.pcap", datagrams(1, 1000)))
        block = next(block for block in blocks if len(block))
        assert frames_of(block) == [datagrams(1, 1000)[0][:128]]
        assert block.records["length"][0] == 1042


def test_a_quiet_link_tells_the_time(wire: Wire, way: str) -> None:
    with open_far(wire, duration_s=0.5) as capture:
        began = time.time_ns()
        times = [block.now_ns for block in capture if not len(block)]
    assert len(times) >= 5
    assert times == sorted(times)
    assert began - 10**9 < times[0] < times[-1] < time.time_ns()
    assert live(capture).received == 0


def test_stop_hands_out_what_arrived(
    wire: Wire,
    way: str,
    tmp_path: Path,
) -> None:
    sent = datagrams(2500)
    with open_far(wire) as capture:
        blocks = listen(capture)
        wire.replay(write(tmp_path / "sent.pcap", sent), "--topspeed")
        capture.stop()
        assert [frame for block in blocks for frame in frames_of(block)] == sent
        wire.replay(tmp_path / "sent.pcap", "--topspeed")
        assert live(capture).received == len(sent)


def test_stop_from_another_thread_ends_a_quiet_wait(wire: Wire) -> None:
    with open_far(wire) as capture:
        listen(capture)
        threading.Timer(0.2, capture.stop).start()
        for block in capture:
            assert len(block) == 0


def test_the_interface_goes_down_and_comes_back(
    wire: Wire,
    way: str,
    tmp_path: Path,
) -> None:
    sent = write(tmp_path / "sent.pcap", datagrams(10))
    notes = Notes()
    with wire.entered(), open_far(wire, progress=notes) as capture:
        blocks = listen(capture)
        wire.run("ip", "link", "set", wire.far, "down")
        take(blocks, lambda _: f"{wire.far} is down: waiting for it" in notes.said)
        wire.run("ip", "link", "set", wire.far, "up")
        take(blocks, lambda _: f"{wire.far} is up again" in notes.said)
        wire.replay(sent)
        assert take(blocks, lambda found: len(found) >= 10) == datagrams(10)
        assert live(capture).interruptions == 1


def test_an_interface_that_is_made_anew_is_followed(
    wire: Wire,
    way: str,
    tmp_path: Path,
) -> None:
    sent = write(tmp_path / "sent.pcap", datagrams(10))
    notes = Notes()
    with wire.entered(), open_far(wire, progress=notes) as capture:
        blocks = listen(capture)
        wire.run("ip", "link", "delete", wire.far)
        take(blocks, lambda _: f"{wire.far} is down: waiting for it" in notes.said)
        wire.connect()
        take(blocks, lambda _: f"{wire.far} is up again" in notes.said)
        wire.replay(sent)
        assert take(blocks, lambda found: len(found) >= 10) == datagrams(10)
        assert not capture.report.faults


def test_one_that_comes_back_with_other_frames_ends_the_capture(wire: Wire) -> None:
    notes = Notes()
    with wire.entered(), open_far(wire, progress=notes) as capture:
        blocks = listen(capture)
        wire.run("ip", "link", "delete", wire.far)
        take(blocks, lambda _: f"{wire.far} is down: waiting for it" in notes.said)
        wire.run("ip", "tuntap", "add", "dev", wire.far, "mode", "tun")
        list(blocks)
    (report,) = capture.report.files
    assert "frames of another kind" in report.fault
    assert any("frames of another kind" in text for text in notes.said)


def test_a_group_of_workers_says_that_it_cannot_follow(wire: Wire) -> None:
    with wire.entered():
        taps = open_taps(wire.far, count=2)
        captures = [LiveCapture(tap) for tap in taps]
        wire.run("ip", "link", "set", wire.far, "down")
        blocks = listen(captures[0])
        wire.run("ip", "link", "set", wire.far, "up")
        take(blocks, lambda _: not captures[0]._away)
        wire.run("ip", "link", "delete", wire.far)
        wire.connect()
        list(blocks)
        for capture in captures:
            capture.close()
    assert "start again" in captures[0].report.files[0].fault


def test_an_interface_that_is_down_at_first(
    wire: Wire,
    way: str,
    tmp_path: Path,
) -> None:
    wire.run("ip", "link", "set", wire.far, "down")
    with wire.entered(), open_far(wire) as capture:
        blocks = listen(capture)
        wire.run("ip", "link", "set", wire.far, "up")
        take(blocks, lambda _: not capture._away)
        wire.replay(write(tmp_path / "sent.pcap", datagrams(3)))
        assert take(blocks, lambda found: len(found) >= 3) == datagrams(3)


def test_raw_ip_of_a_tunnel_device(wire: Wire, way: str) -> None:
    wire.run("ip", "tuntap", "add", "dev", "tun9", "mode", "tun")
    packet = bytes(IP(src="10.0.0.1", dst="10.9.9.9") / UDP(sport=1, dport=2) / Raw(b"hello"))
    # Whoever holds a tun device sends what the kernel then receives.
    hold = (
        "import fcntl, os, struct, sys\n"
        "tun = os.open('/dev/net/tun', os.O_RDWR)\n"
        "fcntl.ioctl(tun, 0x400454CA, struct.pack('16sH22x', b'tun9', 0x1001))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read(1)\n"
        f"os.write(tun, {packet!r})\n"
        "sys.stdin.read(1)\n"
    )
    holder = subprocess.Popen(
        wire.command(sys.executable, "-c", hold),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        if holder.stdout.readline() != b"held\n":
            pytest.skip("no tun devices here")
        wire.silence("tun9")
        wire.run("ip", "link", "set", "tun9", "up")
        with wire.entered():
            capture = open_live("tun9", LiveSettings(ring_mb=1))
        with capture:
            blocks = listen(capture)
            holder.stdin.write(b"x")
            holder.stdin.flush()
            block = next(block for block in blocks if len(block))
            assert frames_of(block) == [packet]
            assert block.records["link"].tolist() == [101] == capture.report.files[0].interfaces
    finally:
        holder.communicate(b"x")


def test_nothing_is_ever_sent_and_what_we_send_is_not_seen(
    wire: Wire,
    way: str,
    tmp_path: Path,
) -> None:
    sent = datagrams(500)
    before = wire.transmitted()
    # A socket on the other end sees whatever the sensor's end sends.
    with (
        wire.entered(),
        open_far(wire) as capture,
        open_live(wire.near, LiveSettings(ring_mb=1)) as other,
    ):
        blocks, others = listen(capture), listen(other)
        wire.replay(write(tmp_path / "sent.pcap", sent), "--topspeed")
        assert take(blocks, lambda found: len(found) >= len(sent)) == sent
        capture.stop()
        assert [len(block) for block in blocks if len(block)] == []
        other.stop()
        assert [frame for block in others for frame in frames_of(block)] == []
    assert wire.transmitted() == before == 0


def test_promiscuous_mode_as_long_as_it_is_open(wire: Wire) -> None:
    def promiscuity() -> str:
        return wire.run("ip", "-d", "link", "show", wire.far).split("promiscuity ")[1].split()[0]

    with open_far(wire):
        assert promiscuity() == "1"
    assert promiscuity() == "0"
    with open_far(wire, LiveSettings(promiscuous=False)):
        assert promiscuity() == "0"


def test_offloads_that_join_packets_are_named(wire: Wire) -> None:
    with wire.entered():
        assert joining_offloads(wire.far) == []
        assert joining_offloads("nowhere") == []
        assert "gro" in joining_offloads("lo")
        with open_live("lo", LiveSettings(ring_mb=1)) as capture:
            (warning,) = [text for text in live(capture).warnings if "ethtool" in text]
    assert "ethtool -K lo gro off" in warning


def test_no_such_interface() -> None:
    with pytest.raises(CaptureError, match=r"no such network interface.*there are: .*lo"):
        open_live("nowhere0")
    with pytest.raises(CaptureError, match="no such network interface"):
        open_live("a name that is much too long for any interface")


def test_an_interface_of_another_kind(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_module, "hardware_type", lambda _: 783)
    with wire.entered(), pytest.raises(CaptureError, match="this kind cannot be decoded"):
        open_live(wire.far)


@pytest.mark.parametrize("values", [{"ring_mb": 0}, {"snaplen": 10}, {"snaplen": 2**20}])
def test_settings_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(VeilwatchError, match="out of range"):
        LiveSettings(**values)


def test_a_block_that_contradicts_itself_ends_the_capture(
    wire: Wire,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ring_module, "walk_ring", lambda *_: (0, 0, ring_module.BROKEN))
    with open_far(wire) as capture:
        blocks = listen(capture)
        wire.replay(write(tmp_path / "sent.pcap", datagrams(3)))
        assert sum(map(len, blocks)) == 0
    assert "contradicts itself" in capture.report.files[0].fault
