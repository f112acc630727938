"""Every packet of every real capture beside tshark: all fields, all statuses, all wrappings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.differential import compare as c
from tests.differential.bundles import join, manifest
from veilwatch.schema.packets import Status

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

TUNNELS: Final = (
    *("mpls", "pppoe", "gre", "erspan", "ip_in_ip", "vxlan", "geneve", "teredo"),
    *("gtp_g_pdu", "gtp_v0", "gtp_prime"),
)

EXPECTED: Final[dict[str, tuple[int, dict[str, int]]]] = {
    "gtp": (
        117_718,
        {
            c.GTP_C: 601,
            f"{c.ONLY_TSHARK} gtpprime": 4,
            c.FROM_PORT: 2,
            c.NOT_PLAUSIBLE: 2,
            c.GPE_FLAG: 1,
            c.CONTRADICTION: 1,
            c.WSCALE: 1,
        },
    ),
    "hostile": (
        171_344,  # one behind a section header whose option is cut, where tshark gives up
        {
            c.FABRICPATH: 56,
            f"{c.ONLY_TSHARK} cmd": 20,
            c.IPV6_LENGTH_0: 14,
            f"{c.ONLY_OURS} 281": 13,
            f"{c.ONLY_OURS} 284": 10,
            f"{c.ONLY_OURS} 285": 10,
            c.ARISTA: 4,
            c.BIG_TCP: 4,
            c.OTHER_VERSION: 3,
            f"{c.ONLY_OURS} 8": 3,
            c.SOURCE_ROUTE: 2,
            c.GRE_VERSION: 2,
            c.CHAIN: 2,
            c.MALFORMED: 2,
            c.UNREAD: 2,
            c.LOOPBACK_ETHERTYPE: 1,
            c.CUT_OPTIONS: 1,
            f"{c.ONLY_TSHARK} sflow": 1,
            c.IPV4_EXTENSION: 1,
            f"{c.ONLY_TSHARK} nhrp": 1,
            f"{c.ONLY_TSHARK} ieee8021ah": 1,
            c.WSCALE: 1,
        },
    ),
    "benign": (
        609_054,
        {
            c.FABRICPATH: 4,
            c.OTHER_VERSION: 1,
            f"{c.ONLY_TSHARK} lisp": 1,
        },
    ),
    "malicious": (
        914_089,
        {},
    ),
}
"""By folder of the corpus: packets, and how many of them differ for which reason (tshark 4.0.17).

The numbers of link types are those of https://www.tcpdump.org/linktypes.html: 281 Broadcom's tag,
284 and 285 Marvell's, 8 SLIP.
"""


@pytest.mark.parametrize("folder", EXPECTED)
def test_packets_agree_with_tshark(folder: str, corpus_path: Path, tmp_path: Path) -> None:
    # Arrange
    joined = tmp_path / "joined.pcapng"
    origins = join(corpus_path, manifest(corpus_path, folder), joined)
    packets, reasons = EXPECTED[folder]

    # Act
    outcome = c.compare(joined, origins)

    # Assert
    assert not outcome.unexplained, "\n".join(outcome.unexplained[:20])
    assert outcome.reasons == reasons
    assert outcome.packets == packets == outcome.counted["packets_read"]
    decoded = outcome.counted["OK"] + outcome.counted["LATER_FRAGMENT"]
    differing = sum(reasons.values())
    for name in c.FIELDS:
        assert decoded - differing <= outcome.agreed[name] <= decoded, name
    met = {name for name in TUNNELS if outcome.counted[name]}
    if folder == "hostile":
        assert met >= {*TUNNELS} - {"gtp_v0", "gtp_prime", "gtp_g_pdu"}
        refusals = {status.name for status in Status if outcome.counted[status.name]}
        assert refusals >= {status.name for status in Status} - {"BAD_TUNNEL"}
    if folder == "gtp":
        assert outcome.counted["gtp_g_pdu"] > 18_000
        assert met >= {"gtp_v0", "gtp_prime"}
