"""Alerts are made of models of flows only."""

from __future__ import annotations

from typing import Any

import pytest

from veilwatch.detection.scoring import unit
from veilwatch.errors import ModelError


@pytest.mark.parametrize("judged", ["host_window", "capture"])
def test_a_model_of_something_else_is_refused(judged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Manifest:
        detector = "lightgbm"

    manifest: Any = Manifest()
    monkeypatch.setattr(unit, "unit_of", lambda _: judged)
    with pytest.raises(ModelError, match=f"judges {judged.replace('_', ' ')}s, not flows"):
        unit.check_unit(manifest)
    monkeypatch.setattr(unit, "unit_of", lambda _: "flow")
    unit.check_unit(manifest)
