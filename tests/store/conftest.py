"""A store of each kind: a file, and a PostgreSQL server of the test's own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from veilwatch.store import Store


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs, None where it is not installed."""
    on_path = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders = [f for f in (*packaged, *on_path) if (f / "initdb").is_file()]
    return next((f for f in folders if (f / "postgres").is_file()), None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server that lives as long as the tests, without a database's name."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed")
    psycopg = pytest.importorskip("psycopg")
    # The server refuses to run as root, and its socket's path must be short.
    drop: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        drop = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="vw-pg-"))
    if drop:
        os.chown(folder, drop["user"], drop["group"])
    data = folder / "data"
    made = subprocess.run(
        [
            programs / "initdb",
            "-D",
            data,
            "-U",
            "veilwatch",
            "-A",
            "trust",
            "-E",
            "UTF8",
            # Not the order of bytes: a store must not hang on how its database sorts.
            "--locale-provider=icu",
            "--icu-locale=en-US",
        ],
        **drop,
        cwd=folder,
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
    )
    if made.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"initdb fails here: {made.stderr.decode(errors='replace')[-200:]}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(programs / "postgres", "-D", data, "-k", folder, "-p", str(port)),
                *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
                *("-c", "shared_buffers=16MB", "-c", "max_connections=20"),
            ],
            **drop,
            cwd=folder,
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(200):
            try:
                psycopg.connect(
                    host="127.0.0.1", port=port, user="veilwatch", dbname="postgres"
                ).close()
                break
            except psycopg.OperationalError:
                if server.poll() is not None:
                    break
                time.sleep(0.05)
        assert server.poll() is None, (folder / "log").read_text()
        yield f"postgresql://veilwatch@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'veilwatch.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    name = f"t{abs(hash(request.node.name)) % 10**12}"
    engine = create_engine(
        server.replace("postgresql:", "postgresql+psycopg:") + "/postgres",
        isolation_level="AUTOCOMMIT",
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield f"{server}/{name}"
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty store of each kind."""
    with Store(url) as opened:
        yield opened


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A way to mount a file system of some KiB; skipped where that is not possible."""
    mounted: list[Path] = []

    def mount(kib: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        if os.geteuid() != 0:
            pytest.skip("mounting a small disk needs root")
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "veilwatch-test", folder],
            capture_output=True,
            check=False,
        )
        if made.returncode:
            pytest.skip(f"no small disk can be mounted: {made.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)
