"""Flows that the lab played, once for all tests of this folder."""

from __future__ import annotations

import pytest

from tests.learning.features.factory import Inner, played_packets, read, write
from veilwatch.schema.flows import FlowTable


@pytest.fixture(scope="session")
def played() -> list[Inner]:
    """Inner packets of about a hundred flows."""
    return played_packets(scale=0.25)


@pytest.fixture(scope="session")
def flows(played: list[Inner], tmp_path_factory: pytest.TempPathFactory) -> FlowTable:
    """Their flow table."""
    return read(write(tmp_path_factory.mktemp("played") / "plain.pcapng", played))
