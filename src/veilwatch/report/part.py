"""What documents of reports are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of the document: no unknown field, nothing changed after making."""

    model_config = ConfigDict(frozen=True, extra="forbid")
