"""One person, as a sensor knows people: by an address, or by a subscriber's pseudonym."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from veilwatch.errors import VeilwatchError

_PSEUDONYM = re.compile(r"s-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Person:
    """Whose data is to be forgotten. Exactly one of both is known of them.

    Attributes
    ----------
    host
        Their address, in any spelling; kept as flow tables write it.
    subscriber
        Their pseudonym.

    Raises
    ------
    VeilwatchError
        If neither or both are given, or one is no address or no pseudonym: nobody's '' is
        everybody's.

    Examples
    --------
    >>> Person(host="FD00:0::7").host
    'fd00::7'
    """

    host: str = ""
    subscriber: str = ""

    def __post_init__(self) -> None:
        if bool(self.host) == bool(self.subscriber):
            raise VeilwatchError(
                "an address and a pseudonym at once" if self.host else "nobody is named",
                hint="give either --host or --subscriber",
            )
        if self.host:
            object.__setattr__(self, "host", _written(self.host))
        elif not _PSEUDONYM.fullmatch(self.subscriber):
            # What was given is not repeated: it may be the identity that the pseudonym hides.
            raise VeilwatchError(
                "that is no pseudonym of a subscriber", hint="s- and 16 hexadecimal digits"
            )

    @property
    def key(self) -> str:
        """Which of both is known: "host" or "subscriber"."""
        return "host" if self.host else "subscriber"

    @property
    def name(self) -> str:
        """The address or the pseudonym."""
        return self.host or self.subscriber

    @property
    def json_pair(self) -> str:
        """The name and value that mark an event as theirs, anywhere in its compact JSON.

        No text that a stranger chose looks like it: JSON escapes the quotes within texts.
        """
        return f'"{self.key}":"{self.name}"'

    def has(self, host: str, subscriber: str) -> bool:
        """Tell whether what is of this host and subscriber is theirs."""
        return self.name == (host if self.host else subscriber)


def _written(text: str) -> str:
    """Return an address as flow tables write it, see `veilwatch.traffic.flow.addresses`."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise VeilwatchError(
            f"{text[:64]!r} is no address", hint="write 10.45.0.7 or fd00::7"
        ) from error
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    # Not str(): it writes the last 32 bits of ::192.0.2.1 and its like in another way.
    return str(address.ipv4_mapped or socket.inet_ntop(socket.AF_INET6, address.packed))
