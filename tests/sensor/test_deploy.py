"""The files in deploy/: what they promise is written in them, and fits the program."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import stat
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_docs import unknown_to_veilwatch
from veilwatch.cli.main import EXIT_TERMINATED
from veilwatch.sensor.config import DEFAULT_STATE, MetricsSection
from veilwatch.sensor.load import load_config
from veilwatch.sensor.notify import MORE_US
from veilwatch.sensor.watch import FLUSH_S
from veilwatch.sinks.base import open_sink

DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def unit() -> dict[str, dict[str, list[str]]]:
    """Sections of the unit, keys in them, values in their order."""
    sections: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in (DEPLOY / "veilwatch.service").read_text().splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals and section, line
            sections[section][key].append(value)
    return sections


def test_the_unit_gives_least_rights(unit: dict[str, dict[str, list[str]]]) -> None:
    service = unit["Service"]
    expected = {
        "Type": "notify",
        "NotifyAccess": "main",
        "User": "veilwatch",
        "AmbientCapabilities": "CAP_NET_RAW",
        "CapabilityBoundingSet": "CAP_NET_RAW",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "StateDirectory": "veilwatch",
        "StateDirectoryMode": "0700",
        "CacheDirectoryMode": "0700",
        "SystemCallFilter": "@system-service",
        "OOMPolicy": "continue",
        "KillMode": "mixed",
        "LimitCORE": "0",
    }
    assert {key: service[key] for key in expected} == {key: [v] for key, v in expected.items()}
    families = set(service["RestrictAddressFamilies"][0].split())
    assert families == {"AF_UNIX", "AF_INET", "AF_INET6", "AF_PACKET", "AF_NETLINK"}
    assert "MemoryDenyWriteExecute" not in service  # Numba could not compile


def test_the_unit_fits_the_program(unit: dict[str, dict[str, list[str]]]) -> None:
    service = unit["Service"]
    assert service["SuccessExitStatus"] == [str(EXIT_TERMINATED)]
    assert sum(FLUSH_S.values()) < int(service["TimeoutStopSec"][0])
    # Asked for anew at every look, so it may not be shorter than the watchdog's time.
    assert int(service["WatchdogSec"][0]) * 10**6 <= MORE_US
    assert Path("/var/lib", service["StateDirectory"][0]) == DEFAULT_STATE
    cache = f"VEILWATCH_CACHE=/var/cache/{service['CacheDirectory'][0]}"
    assert cache in " ".join(service["Environment"]).split()
    words = shlex.split(service["ExecStart"][0])
    assert words[1:] == ["watch", "--config", "/etc/veilwatch/sensor.toml"]
    assert unknown_to_veilwatch(words[1:]) == ""


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    # The program stands where the unit says only on a sensor.
    text = (DEPLOY / "veilwatch.service").read_text()
    there = tmp_path / "veilwatch.service"
    there.write_text(text.replace("/opt/veilwatch/current/bin/veilwatch", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", there], capture_output=True, text=True, check=False, timeout=60
    )
    if "Failed to initialize manager" in done.stderr:
        pytest.skip(f"systemd does not run here: {done.stderr.strip()}")
    assert done.returncode == 0 and "veilwatch.service" not in done.stderr, done.stderr
    rated = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", there],
        *(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated.stdout)
    if level is None:
        pytest.skip("this systemd cannot rate a unit that is not loaded")
    assert float(level[1]) <= 2.5, rated.stdout


def test_the_example_is_a_good_configuration() -> None:
    path = DEPLOY / "sensor.toml"
    config = load_config(path).config
    assert config.sensor.state == DEFAULT_STATE
    assert config.metrics == MetricsSection()
    for url in config.sinks.urls:
        open_sink(url).close()
    # What it says beside the settings of the default is meant to be changed.
    assert "model" in tomllib.loads(path.read_text())


def test_users_and_folders() -> None:
    lines = [
        shlex.split(line)
        for name in ("sysusers.conf", "tmpfiles.conf")
        for line in (DEPLOY / name).read_text().splitlines()
        if line and not line.startswith("#")
    ]
    (user,) = [line for line in lines if line[0] == "u"]
    assert user[1] == "veilwatch" and user[-1].endswith("nologin")
    folders = {line[1]: line[2] for line in lines if line[0] == "d"}
    assert folders[str(DEFAULT_STATE)] == "0700"
    assert all(not int(mode, 8) & (stat.S_IRWXO | stat.S_IWGRP) for mode in folders.values())


def test_the_mirror_port_is_that_of_the_example() -> None:
    interfaces = load_config(DEPLOY / "sensor.toml").config.capture.interfaces
    for name in ("mirror.link", "mirror.network"):
        text = (DEPLOY / name).read_text()
        assert re.findall(r"^(?:Original)?Name=(.*)$", text, flags=re.M) == interfaces
        assert "Address=" not in text and "DHCP=" not in text


def instructions() -> list[tuple[str, str]]:
    """Instructions of the container file, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Containerfile").read_text(), flags=re.M)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines if line]


def test_the_container_is_built_from_what_is_there() -> None:
    steps = instructions()
    assert {name for name, _ in steps} <= {
        *("ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "STOPSIGNAL"),
        *("HEALTHCHECK", "ENTRYPOINT", "CMD"),
    }
    stages = [value.partition(" AS ")[2] for name, value in steps if name == "FROM"]
    assert len(stages) == 2
    for name, value in steps:
        if name != "COPY":
            continue
        *sources, _ = value.split()
        if sources[0].startswith("--from="):
            assert sources[0].removeprefix("--from=") in stages
            continue
        assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_container_installs_extras_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (chosen,) = [value.removeprefix("EXTRAS=") for name, value in instructions() if name == "ARG"]
    assert {*chosen.split(",")} <= {*project["optional-dependencies"]} - {"dev", "train"}


def test_the_container_runs_without_root() -> None:
    steps = instructions()
    last = len(steps) - 1 - [name for name, _ in reversed(steps)].index("FROM")
    final = steps[last:]
    users = [value for name, value in final if name == "USER"]
    assert users == ["veilwatch"]
    text = " ".join(value for _, value in final)
    assert "setcap cap_net_raw=ep" in text and "--privileged" not in text
    probe = next(value for name, value in final if name == "HEALTHCHECK")
    words = json.loads(probe.partition("CMD ")[2])
    assert MetricsSection().listen in words[-1] and "/healthz" in words[-1]
    compile(words[-1], "healthcheck", "exec")
    started = [json.loads(v) for name, v in final if name in ("ENTRYPOINT", "CMD")]
    assert unknown_to_veilwatch(started[1]) == "" and started[0] == ["veilwatch"]
