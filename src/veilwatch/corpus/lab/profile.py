"""Profiles: what an emulated family or application does, as data.

A profile is one TOML file in `profiles/`; a new file is found without being registered. Benign
and malicious profiles speak the same kinds of activity, so that what tells them apart is how they
use them. Quantities are a number or `[low, high]`, drawn anew each time and spread
evenly on a logarithmic scale. Times are seconds, sizes bytes.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from veilwatch.corpus.lab.clients import Program
from veilwatch.corpus.lab.draw import Range
from veilwatch.corpus.lab.messages import TcpForm, UdpForm
from veilwatch.corpus.lab.smb import Operation
from veilwatch.errors import CorpusError


def _as_range(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) else value


Quantity = Annotated[Range, BeforeValidator(_as_range)]

Port = Annotated[int, Field(ge=1, le=65_535)]

Stack = Program | Literal["browser", "system"]
"""What writes the client's side of TLS: a program, or that of the subscriber's machine."""

CertificateKind = Literal[
    "public-ec", "public-rsa", "letsencrypt", "cdn", "private-ca", "self-signed", "appliance",
    "expired",
]  # fmt: skip


STEADY: Final = 0.08
"""Share by which sizes of calls vary that a machine makes by itself: counters, times, tokens."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Activity(_Part):
    """Something done again and again.

    `flows` are the repetitions in one capture at scale 1; the first begins `start` after the
    capture does, each further one `interval` after the one before it. With a `jitter` the interval
    is drawn once for each host and varies by that share, as the sleep of a beacon does, and so are
    sizes, which vary by `STEADY`: what a machine says by itself it says again. Of TCP
    connections the share `failing` reaches nobody, or is refused, and is tried again.
    """

    name: str
    flows: Annotated[int, Field(ge=1, le=400)]
    start: Quantity = (0, 60)
    interval: Quantity = (1, 10)
    jitter: Annotated[float, Field(ge=0, le=1)] | None = None
    failing: Annotated[float, Field(ge=0, le=1)] = 0.0


class Tls(_Activity):
    """TLS connections, each with some rounds of request and response."""

    kind: Literal["tls"]
    servers: Annotated[int, Field(ge=1, le=16)] = 1
    inside: bool = False  # servers of the own network rather than the Internet
    names: Literal["words", "random", "none"] = "words"  # what the SNI looks like
    port: list[Port] = [443]
    certificate: list[CertificateKind] = ["public-ec", "public-rsa"]
    stacks: list[Stack] = ["system"]
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
    linger: Quantity = (0.0005, 6)  # between the last answer and the end
    close: list[Literal["fin", "rst", "silent"]] = ["fin", "fin", "rst", "silent"]


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
    """Connections to a file server over SMB 3, signed or, where the server wants it, encrypted."""

    kind: Literal["share"]
    servers: Annotated[int, Field(ge=1, le=16)] = 1
    files: Quantity
    size: Quantity
    operations: list[Operation]
    encrypted: Annotated[float, Field(ge=0, le=1)] = 0.15  # share of servers that demand it
    denied: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of files that may not be opened
    kerberos: Annotated[float, Field(ge=0, le=1)] = 0.7  # share of sign-ins by ticket
    chunk: Annotated[int, Field(ge=512, le=65_536)] = 65_536
    think: Quantity = (0.0005, 0.005)  # between operations
    rest: Quantity = (0.002, 0.05)  # between files
    linger: Quantity = (0.0005, 6)  # between the last answer and the end
    close: list[Literal["fin", "rst", "silent"]] = ["fin", "fin", "rst", "silent"]


class Names(_Activity):
    """Lookups in the DNS."""

    kind: Literal["names"]
    label: Quantity = (6, 14)  # length of the first label
    random: bool = False  # letters at random rather than words
    missing: Annotated[float, Field(ge=0, le=1)] = 0.02  # share of names that do not exist
    below: int = 0  # number of the one domain that all names belong to; 0 each has its own
    text: Quantity = (0, 0)  # bytes of the TXT record that is asked for; 0 an address is


class Stream(_Activity):
    """UDP conversations: media in both directions, or question and answer."""

    kind: Literal["stream"]
    form: UdpForm
    servers: Annotated[int, Field(ge=1, le=64)] = 1
    inside: bool = False
    port: list[Port]
    packets: Quantity = (1, 1)  # each way
    up: Quantity = (48, 48)
    down: Quantity = (48, 48)
    gap: Quantity = (0.02, 0.02)
    answered: Annotated[float, Field(ge=0, le=1)] = 1.0  # share of conversations


class Talk(_Activity):
    """TCP connections of a protocol that is neither TLS nor SMB."""

    kind: Literal["talk"]
    form: TcpForm
    servers: Annotated[int, Field(ge=1, le=16)] = 1
    inside: bool = False
    named: bool = True  # whether servers are looked up
    port: list[Port]
    rounds: Quantity = (1, 1)
    up: Quantity = (150, 600)
    down: Quantity = (200, 4000)
    think: Quantity = (0.01, 0.2)
    serve: Quantity = (0.005, 0.08)
    linger: Quantity = (0.0005, 6)  # between the last answer and the end
    close: list[Literal["fin", "rst", "silent"]] = ["fin", "fin", "rst", "silent"]


Activity = Annotated[Tls | Sweep | Share | Names | Stream | Talk, Field(discriminator="kind")]


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
    """One emulated family or one benign application.

    What is `habit` people do all day: every host that somebody uses does some of it beside what it
    is played for.
    """

    name: str
    kind: Literal["ransomware", "malware", "benign"]
    habit: bool = False
    used: bool = True  # whether a person sits at the host too
    follows: str  # the behaviour taken from the source, in a sentence or two
    source: Source
    variant: Annotated[list[Variant], Field(min_length=2)]

    @property
    def trained(self) -> tuple[Variant, ...]:
        """The variants that are not kept for the field."""
        return tuple(variant for variant in self.variant if not variant.field)

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
