"""Small captures and a way to run the command as a user does."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final
from unittest.mock import patch

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from veilwatch.cli.main import run
from veilwatch.traffic.capture import PcapWriter

PCAP_HEADER: Final = 24


def veilwatch(
    *words: str | Path, stdin: bytes = b"", encoding: str = "utf-8"
) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, from its words to its exit code and what it prints.

    A process of its own takes seconds to load what a verb needs. Where it is the process that is
    tested (pipes, signals, encodings, what is loaded), there is `veilwatch_process`.
    """
    typed, out, err = (
        io.TextIOWrapper(io.BytesIO(data), encoding=encoding) for data in (stdin, b"", b"")
    )
    arguments = ["veilwatch", *map(str, words)]
    on_sigterm = signal.getsignal(signal.SIGTERM)
    code: object = None
    with patch.multiple(sys, argv=arguments, stdin=typed, stdout=out, stderr=err):
        try:
            run()
        except SystemExit as end:
            code = end.code
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
    assert isinstance(code, int), code
    return subprocess.CompletedProcess(arguments, code, _text(out), _text(err))


def _text(stream: io.TextIOWrapper[io.BytesIO]) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode(errors="replace")


def veilwatch_process(
    *words: str | Path, stdin: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a user does."""
    result = subprocess.run(
        [sys.executable, "-m", "veilwatch", *map(str, words)],
        input=stdin,
        capture_output=True,
        timeout=600,
        check=False,
    )
    return subprocess.CompletedProcess(
        result.args,
        result.returncode,
        result.stdout.decode(errors="replace"),
        result.stderr.decode(errors="replace"),
    )


PIPE_BYTES: Final = 4 * 2**20
"""More than a pipe and what reads it hold together: who has taken it works on it."""


def feed(process: subprocess.Popen[bytes], scratch: Path) -> None:
    """Write a capture that does not end to a process; return once it is at work on it."""
    content = write_capture(scratch).read_bytes()
    header, packets = content[:PCAP_HEADER], content[PCAP_HEADER:]
    assert process.stdin is not None
    process.stdin.write(header + packets * (PIPE_BYTES // len(packets) + 1))
    process.stdin.flush()


def exchange(client: str, port: int, *, payload: bytes = b"x" * 40, rounds: int = 3) -> list[bytes]:
    """Return the frames of a TCP connection with some rounds of payload."""
    up = Ether() / IP(src=client, dst="203.0.113.5")
    down = Ether() / IP(src="203.0.113.5", dst=client)
    sport, dport = port, 443
    frames = [
        up / TCP(sport=sport, dport=dport, flags="S", seq=1),
        down / TCP(sport=dport, dport=sport, flags="SA", seq=1, ack=2),
        up / TCP(sport=sport, dport=dport, flags="A", seq=2, ack=2),
    ]
    for k in range(rounds):
        offset = 2 + k * len(payload)
        frames.append(
            up / TCP(sport=sport, dport=dport, flags="PA", seq=offset, ack=offset) / Raw(payload)
        )
        frames.append(
            down / TCP(sport=dport, dport=sport, flags="PA", seq=offset, ack=offset) / Raw(payload)
        )
    return [bytes(frame) for frame in frames]


def write_capture(path: Path, *, flows: int = 3, datagrams: int = 2) -> Path:
    """Write a small capture of some TCP flows and some UDP flows."""
    with PcapWriter(path) as writer:
        time_ns = 1_700_000_000_000_000_000
        for k in range(flows):
            for frame in exchange(f"10.0.0.{k + 1}", 40000 + k):
                writer.write(time_ns, frame)
                time_ns += 1_000_000
        for k in range(datagrams):
            frame = bytes(
                Ether()
                / IP(src="10.0.1.1", dst="198.51.100.7")
                / UDP(sport=5000 + k, dport=9999)
                / Raw(b"hello")
            )
            writer.write(time_ns, frame)
            time_ns += 1_000_000
    return path
