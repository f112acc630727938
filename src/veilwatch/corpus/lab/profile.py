"""Profiles: what an emulated family or application does, as data.

A profile is one TOML file in `profiles/`; a new file is found without being registered. Benign
and malicious profiles speak the same five kinds of activity, so that what tells them apart is
how they use them. Quantities are a number or `[low, high]`, drawn anew each time and spread
evenly on a logarithmic scale. Times are seconds, sizes bytes.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from veilwatch.corpus.lab.draw import Range
from veilwatch.errors import CorpusError


def _as_range(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) else value


Quantity = Annotated[Range, BeforeValidator(_as_range)]

Port = Annotated[int, Field(ge=1, le=65_535)]

Stack = Literal["wide", "mobile", "nist", "wide12", "cbc12", "embedded12"]

CertificateKind = Literal["public-ec", "public-rsa", "private-ca", "self-signed"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Activity(_Part):
    """Something done again and again.

    `flows` are the repetitions in one capture at scale 1; the first begins `start` after the
    capture does, each further one `interval` after the one before it.
    """

    name: str
    flows: Annotated[int, Field(ge=1, le=400)]
    start: Quantity = (0, 60)
    interval: Quantity = (1, 10)


class Tls(_Activity):
    """TLS connections, each with some rounds of request and response."""

    kind: Literal["tls"]
    servers: Annotated[int, Field(ge=1, le=16)] = 1
    inside: bool = False  # servers of the own network rather than the Internet
    names: Literal["words", "random", "none"] = "words"  # what the SNI looks like
    port: list[Port] = [443]
    certificate: list[CertificateKind] = ["public-ec", "public-rsa"]
    stacks: list[Stack] = ["wide"]
    versions: list[Literal["1.2", "1.3"]] = ["1.3"]  # the highest that the server speaks
    alpn: list[str] = []
    resume: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of connections that resume
    rounds: Quantity = (1, 1)
    up: Quantity = (200, 800)
    down: Quantity = (200, 4000)
    think: Quantity = (0.01, 0.2)  # pause of the client before a request
    serve: Quantity = (0.005, 0.08)  # pause of the server before its response
    record: list[Annotated[int, Field(ge=64, le=16_384)]] = [16_384]  # largest plaintext
    keep_alive: bool = False  # whether TCP keep-alive bridges idle times
    close: list[Literal["fin", "rst", "silent"]] = ["fin"]


class Sweep(_Activity):
    """One probe to each of many addresses; a flow is one address."""

    kind: Literal["sweep"]
    protocol: Literal["tcp", "udp"]
    port: list[Port]
    inside: bool = False
    payload: Quantity = (0, 0)  # of a UDP probe
    answered: Annotated[float, Field(ge=0, le=1)] = 0.0
    refused: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of TCP probes answered by RST
    retries: Annotated[int, Field(ge=0, le=5)] = 0  # of an unanswered SYN
    ordered: bool = False  # addresses one after another rather than at random


class Share(_Activity):
    """Connections to a file server over SMB 3, encrypted after the negotiation."""

    kind: Literal["share"]
    servers: Annotated[int, Field(ge=1, le=16)] = 1
    files: Quantity
    size: Quantity
    operations: list[Literal["create", "read", "write", "rename", "close", "query"]]
    chunk: Annotated[int, Field(ge=512, le=65_536)] = 65_536
    think: Quantity = (0.0005, 0.005)  # between operations
    rest: Quantity = (0.002, 0.05)  # between files
    close: list[Literal["fin", "rst", "silent"]] = ["fin"]


class Names(_Activity):
    """Lookups in the DNS."""

    kind: Literal["names"]
    label: Quantity = (6, 14)  # length of the first label
    random: bool = False  # letters at random rather than words
    failing: Annotated[float, Field(ge=0, le=1)] = 0.02  # share of names that do not exist


class Stream(_Activity):
    """UDP conversations: media in both directions, or question and answer."""

    kind: Literal["stream"]
    form: Literal["rtp", "ntp", "opaque"]
    servers: Annotated[int, Field(ge=1, le=16)] = 1
    port: list[Port]
    packets: Quantity = (1, 1)  # each way
    up: Quantity = (48, 48)
    down: Quantity = (48, 48)
    gap: Quantity = (0.02, 0.02)


Activity = Annotated[Tls | Sweep | Share | Names | Stream, Field(discriminator="kind")]


class Source(_Part):
    """The public document that a profile's behaviour follows."""

    title: str
    publisher: str
    year: Annotated[int, Field(ge=1980, le=2100)]
    url: str = ""


class Variant(_Part):
    """One way of a family or application to behave."""

    id: str
    field: bool = False  # kept out of the training captures, for the field capture only
    activity: Annotated[list[Activity], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        names = [activity.name for activity in self.activity]
        if len(set(names)) < len(names):
            raise ValueError(f"two activities of {self.id} have the same name")
        return self


class Profile(_Part):
    """One emulated family or one benign application."""

    name: str
    kind: Literal["ransomware", "benign"]
    follows: str  # the behaviour taken from the source, in a sentence or two
    source: Source
    variant: Annotated[list[Variant], Field(min_length=2)]

    @property
    def malicious(self) -> bool:
        """Whether its captures are labelled malicious."""
        return self.kind != "benign"

    @model_validator(mode="after")
    def _named_for_what_it_is(self) -> Self:
        if self.malicious and not self.name.endswith("-like"):
            raise ValueError("the name of an emulated family ends in '-like'")
        return self


@cache
def load_profiles() -> tuple[Profile, ...]:
    """Return every profile in the folder `profiles/`, in order of file name.

    Raises
    ------
    CorpusError
        If a file is not a valid profile.
    """
    found = []
    folder = resources.files("veilwatch.corpus.lab") / "profiles"
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if not entry.name.endswith(".toml"):
            continue
        try:
            found.append(Profile.model_validate(tomllib.loads(entry.read_text("utf-8"))))
        except (tomllib.TOMLDecodeError, ValidationError) as error:
            raise CorpusError(
                f"not a valid profile: {error}", where=entry.name, hint="see corpus/lab/profile.py"
            ) from error
    return tuple(found)
