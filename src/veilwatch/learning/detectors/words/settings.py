"""What the user may choose about header words, and within which bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veilwatch.errors import TrainingError
from veilwatch.schema.headers import HEADER_PACKETS

Steps = Literal["words", "packets"]
Pool = Literal["last", "max"]
Unknown = Literal["field", "skip"]


class WordSettings(BaseModel):
    """Parameters of the detector `header_words`; the defaults are the improved setting.

    Attributes
    ----------
    values
        "bucketed" makes words of what a value says whatever the place; "raw" takes each value of
        each field as it stands, as published.
    fields
        Fields that take part, by name; empty for all that `values` knows.
    packets
        Packets of a capture that are looked at, from the first.
    steps
        What the LSTM takes at a time: a word, as published, or the words of a packet side by side.
    pool
        What is judged: the state after the last step, as published, or the largest value that each
        cell had.
    min_captures
        Captures that a word must appear in to be one; rarer ones are unknown.
    unknown
        What an unknown word says: "field" that its field said something that training did not
        know, "skip" nothing, so that it takes no step.
    forget
        Share of words that training hides behind the unknown word at each look.
    dimensions, window, negatives, word_epochs
        Of the Skip-gram model.
    hidden, dropout, epochs, batch, learning_rate
        Of the LSTM and its training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    values: Literal["bucketed", "raw"] = "bucketed"
    fields: tuple[str, ...] = ()
    packets: int = Field(32, ge=1, le=HEADER_PACKETS)
    steps: Steps = "packets"
    pool: Pool = "max"
    min_captures: int = Field(2, ge=1)
    unknown: Unknown = "field"
    forget: float = Field(0.1, ge=0, lt=1)
    dimensions: int = Field(50, ge=1, le=1024)
    window: int = Field(3, ge=1, le=100)
    negatives: int = Field(4, ge=1, le=100)
    word_epochs: int = Field(10, ge=1, le=1000)
    hidden: int = Field(50, ge=1, le=1024)
    dropout: float = Field(0.2, ge=0, lt=1)
    epochs: int = Field(20, ge=1, le=10_000)
    batch: int = Field(32, ge=1, le=4096)
    learning_rate: float = Field(1e-3, gt=0, le=1)


PUBLISHED: Mapping[str, Any] = {
    "values": "raw",
    "packets": 16,
    "steps": "words",
    "pool": "last",
    "min_captures": 5,
    "unknown": "skip",
    "forget": 0.0,
    "dropout": 0.5,
    "batch": 8,
}
"""Parameters of the published setting. Its paper states the Skip-gram (4 negatives, 50 dimensions,
window 3, 10 epochs) and the network (LSTM of 50 cells, dropout, one sigmoid, 20 epochs). What it
does not state is ours, chosen on inner folds of what trains: how many packets are read, the rate of
the dropout, the size of batches, and that words of fewer than five captures, which mostly name one
connection, take no step, as Skip-gram tools leave out what they met fewer than five times."""


def word_settings(parameters: Mapping[str, Any]) -> WordSettings:
    """Return the settings that parameters ask for.

    Raises
    ------
    TrainingError
        If one is unknown or out of its bounds.
    """
    try:
        return WordSettings.model_validate(
            {k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()}
        )
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, fault["loc"]))
        raise TrainingError(
            f"parameter {name!r}: {fault['msg']}",
            hint=f"known: {', '.join(WordSettings.model_fields)}",
        ) from error
