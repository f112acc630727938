"""What is left of the memory: of the machine, of control groups, and what is given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from veilwatch.sensor import memory_monitor
from veilwatch.sensor.memory_monitor import Level, MemoryMonitor, free_bytes

MIB = 1 << 20


class Machine:
    """The files in which the kernel tells."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroup = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)

    def has(self, free_mb: int) -> None:
        text = f"MemTotal:  99999999 kB\nMemAvailable:  {free_mb * 1024} kB\n"
        (self.proc / "meminfo").write_text(text)

    def group(self, name: str, maximum: str, used_mb: int, cache_mb: int, high: str) -> None:
        (self.proc / "self" / "cgroup").write_text("1:cpu:/old\n0::/system.slice/veilwatch\n")
        folder = self.cgroup / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{maximum}\n")
        (folder / "memory.high").write_text(f"{high}\n")
        (folder / "memory.current").write_text(f"{used_mb * MIB}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache_mb * MIB}\n")

    @property
    def free(self) -> int | None:
        return free_bytes(self.proc, self.cgroup)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_machine_and_its_groups_count(machine: Machine) -> None:
    assert machine.free is None
    machine.has(1000)
    assert machine.free == 1000 * MIB
    machine.group("system.slice/veilwatch", "max", 500, 0, "max")
    assert machine.free == 1000 * MIB
    machine.group("system.slice/veilwatch", str(900 * MIB), 500, 100, str(800 * MIB))
    assert machine.free == 400 * MIB
    machine.group("system.slice", str(600 * MIB), 590, 0, "max")
    assert machine.free == 10 * MIB
    machine.group("system.slice", str(600 * MIB), 700, 0, "max")
    assert machine.free == 0


def test_what_cannot_be_read_does_not_count(machine: Machine) -> None:
    machine.has(5)
    machine.group("system.slice", "nonsense", 1, 0, "1.5")
    (machine.cgroup / "system.slice" / "memory.stat").write_text("one two three\n")
    assert machine.free == 5 * MIB


def test_levels_have_a_margin(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_monitor, "LOOK_S", 0.0)
    looked = MemoryMonitor(200, proc=machine.proc, cgroup=machine.cgroup)
    seen = []
    for free_mb in (300, 201, 199, 240, 99, 120, 126, 249, 251):
        machine.has(free_mb)
        seen.append(looked.level())
    W, T, S = Level
    assert seen == [W, W, T, T, S, S, T, T, W]


def test_zero_never_looks(machine: Machine) -> None:
    machine.has(0)
    assert MemoryMonitor(0, proc=machine.proc, cgroup=machine.cgroup).level() is Level.WELL


def test_this_machine_tells() -> None:
    assert (free_bytes() or 0) > 0
