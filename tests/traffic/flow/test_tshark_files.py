"""SMB and NFS messages of real captures against tshark's dissectors."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.traffic.flow.file_messages import MORE, NFS3, SMB1, SMB2
from veilwatch.schema.flows import FILE_MESSAGES
from veilwatch.traffic.pipeline import FlowReader

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

FOLDERS = ("malicious/LateralMovement", "malicious/EternalBlue-exploit", "malicious/WannaCry")
MORE_THAN_TSHARK = {"eternalblue-success-unpatched-win7-59071b.pcap.gz": Counter(other=1)}
"""Its frame 19 goes on where frame 16 ended; tshark takes it for a fast retransmission."""

FIELDS = (
    *("smb2.cmd", "smb2.flags.response", "smb2.nt_status", "smb2.header.transform.signature"),
    *("smb.cmd", "smb.flags.response", "smb.nt_status", "rpc.msgtyp", "rpc.procedure"),
    *("rpc.program", "rpc.programversion"),
)
AS_SENT = [
    option
    for name in (
        *("tcp.desegment_tcp_streams", "nbss.desegment_nbss_commands"),
        "rpc.desegment_rpc_over_tcp",
    )
    for option in ("-o", f"{name}:FALSE")
]
"""Segment by segment: what begins a TCP payload, as the meter sees it."""


def by_tshark(path: Path) -> Counter[str]:
    """Kinds of the first message of each segment that brings new bytes."""
    asked = [part for name in FIELDS for part in ("-e", name)]
    new = "!tcp.analysis.retransmission && !tcp.analysis.spurious_retransmission"
    # It looks for a message's magic further on as well where a payload begins otherwise.
    new += " && (tcp.payload[0:1] == 00 || tcp.payload[0:1] == 80)"
    command = ["tshark", "-n", "-r", str(path), *AS_SENT, "-Y", new, "-T", "fields", *asked]
    text = subprocess.run(
        [*command, "-E", "occurrence=f"], capture_output=True, text=True, check=True
    ).stdout
    kinds = Counter(kind(line.split("\t")) for line in text.splitlines())
    del kinds[""]
    return kinds


def kind(values: list[str]) -> str:
    row = dict(zip(FIELDS, values, strict=True))
    if row["smb2.header.transform.signature"]:
        return "encrypted"
    for name, commands in (("smb2", SMB2), ("smb", SMB1)):
        if row[f"{name}.cmd"] == "":
            continue
        if row[f"{name}.flags.response"] in ("1", "True"):
            status = int(row[f"{name}.nt_status"] or "0", 0)
            return "error" if status >= 0xC0000000 and status != MORE else ""
        return commands.get(int(row[f"{name}.cmd"], 0), "other")
    if (row["rpc.msgtyp"], row["rpc.program"]) == ("0", "100003"):
        known = NFS3 if row["rpc.programversion"] == "3" else {}
        return known.get(int(row["rpc.procedure"]), "other")
    return ""


def test_as_tshark(corpus_path: Path) -> None:
    found, different = Counter[str](), {}
    for path in sorted(path for name in FOLDERS for path in (corpus_path / name).iterdir()):
        with FlowReader([path]) as reader:
            frame = reader.read_all().frame
        ours = Counter({name: int(frame[f"file_{name}"].sum()) for name in FILE_MESSAGES})
        theirs = by_tshark(path) + MORE_THAN_TSHARK.get(path.name, Counter())
        if +ours != theirs:
            different[path.name] = (ours - theirs, theirs - ours)
        found += ours
    assert different == {}
    # The captures show enough for that to mean something.
    assert min(found[name] for name in FILE_MESSAGES if name != "encrypted") > 10
