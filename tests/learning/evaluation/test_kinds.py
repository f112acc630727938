"""False alarms by kind beside what a person would count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.learning.training.factory import entry
from veilwatch.learning.evaluation.kinds import KindCount, benign_kind, count_kinds


@pytest.mark.parametrize(
    ("name", "setting", "kind"),
    [
        ("benign/a.pcap", "", "unnamed"),
        ("benign/home/a.pcap", "", "home"),
        ("benign/home/tv/a.pcap", "", "home"),
        ("/srv/corpus/benign/home/a.pcap", "", "home"),
        ("other/home/a.pcap", "", "unnamed"),
        ("home/benign", "", "unnamed"),
        ("benign/home/a.pcap", "enterprise-ad", "enterprise-ad"),
    ],
)
def test_the_kind_of_a_capture(name: str, setting: str, kind: str) -> None:
    assert benign_kind(replace(entry(0, "benign"), name=name, setting=setting)) == kind


def test_benign_captures_that_were_judged_are_counted() -> None:
    settings = ["vpn", "vpn", "", "vpn", "backup", "vpn"]
    entries = [
        replace(entry(k, "malicious" if k == 3 else "benign"), setting=setting)
        for k, setting in enumerate(settings)
    ]
    judged = np.array([True, True, True, True, False, True])
    alert = np.array([True, False, True, True, True, True])
    assert count_kinds(entries, judged, alert) == {
        "unnamed": KindCount(1, 1),
        "vpn": KindCount(3, 2),
    }
