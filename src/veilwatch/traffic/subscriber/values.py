"""Values of the information elements that the directory needs, read with pycrate.

pycrate is optional (extra `mobile`) and takes half a second to load, so it is loaded with the
first control message. Its classes raise many kinds of exceptions for bytes that do not fit;
here each of them means one refused element and nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, TypeVar

from veilwatch.traffic.subscriber.messages import MAPPED

MAX_VALUE: Final = 512
"""Longest value that is handed to pycrate: a location of all kinds has 51 bytes, a name 100."""

MAX_VALUES: Final = 256
"""Most values of one message that are handed to pycrate: eleven bearers need about 90, and each
costs up to 0.2 ms."""

MAX_NAME: Final = 100
"""Longest access point name (TS 23.003 cl. 9.1)."""

CACHED: Final = 4096
"""Names and locations kept decoded: they repeat from subscriber to subscriber."""

Value = TypeVar("Value")


class InterfaceEnd(NamedTuple):
    """A GTPv2-C F-TEID: interface type, TEID and one or two addresses."""

    interface: int
    teid: int
    addresses: tuple[int, ...]


class NamedEnd(NamedTuple):
    """A TEID or SEID with its addresses; `name` is None where the receiver shall choose it."""

    name: int | None
    addresses: tuple[int, ...]


@lru_cache(maxsize=1)
def load() -> SimpleNamespace | None:
    """Load pycrate; None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of pycrate's regular expressions
            warnings.simplefilter("ignore", DeprecationWarning)
            from pycrate_mobile import TS24008_IE as nas
            from pycrate_mobile import TS29060_GTP as gtpv1
            from pycrate_mobile import TS29244_PFCP as pfcp
            from pycrate_mobile import TS29274_GTPC as gtpv2
    except ImportError:
        return None
    return SimpleNamespace(nas=nas, gtpv1=gtpv1, gtpv2=gtpv2, pfcp=pfcp)


class ValueReader:
    """Reads the values of one message, within a budget.

    Every method returns None for bytes that do not fit.

    Attributes
    ----------
    refused
        Values that did not fit or were beyond the budget.
    """

    def __init__(self) -> None:
        self.refused = 0
        self._left = MAX_VALUES

    def gtpv2_end(self, value: bytes) -> InterfaceEnd | None:
        """Read an F-TEID (TS 29.274 cl. 8.22)."""
        return self._read(_gtpv2_end, value)

    def pfcp_end(self, value: bytes) -> NamedEnd | None:
        """Read an F-TEID (TS 29.244 cl. 8.2.3)."""
        return self._read(_pfcp_end, value)

    def outer_header(self, value: bytes) -> NamedEnd | None:
        """Read an Outer Header Creation (TS 29.244 cl. 8.2.56); without addresses if not GTP-U."""
        return self._read(_outer_header, value)

    def session_end(self, value: bytes) -> NamedEnd | None:
        """Read an F-SEID (TS 29.244 cl. 8.2.37)."""
        return self._read(_session_end, value)

    def ue_addresses(self, value: bytes) -> tuple[int, ...] | None:
        """Read a UE IP Address (TS 29.244 cl. 8.2.62)."""
        return self._read(_ue_addresses, value)

    def user_id(self, value: bytes) -> dict[str, bytes] | None:
        """Read a User ID (TS 29.244 cl. 8.2.101): digits by `imsi`, `msisdn`, `imei`."""
        return self._read(_user_id, value)

    def pdn_addresses(self, value: bytes) -> tuple[int, ...] | None:
        """Read a PDN Address Allocation (TS 29.274 cl. 8.14)."""
        return self._read(_pdn_addresses, value)

    def end_user_addresses(self, value: bytes) -> tuple[int, ...] | None:
        """Read an End User Address (TS 29.060 cl. 7.7.27)."""
        return self._read(_end_user_addresses, value)

    def digits(self, value: bytes) -> bytes | None:
        """Read an IMSI, MEI or MSISDN in telephony BCD (TS 29.274 cl. 8.3, 8.10, 8.11)."""
        return self._read(_digits, value)

    def name(self, value: bytes) -> str | None:
        """Read an access point or data network name, as labels (TS 23.003 cl. 9.1) or text."""
        return self._read(_name, value)

    def location(self, value: bytes) -> str | None:
        """Read a User Location Information of GTPv2-C (TS 29.274 cl. 8.21)."""
        return self._read(_location, value)

    def old_location(self, value: bytes) -> str | None:
        """Read a User Location Information of GTPv1-C (TS 29.060 cl. 7.7.51)."""
        return self._read(_old_location, value)

    def _read(self, decode: Callable[[bytes], Value], value: bytes) -> Value | None:
        if len(value) > MAX_VALUE or self._left <= 0:
            self.refused += 1
            return None
        self._left -= 1
        try:
            return decode(value)
        except Exception:
            # pycrate: CharpyErr, EltErr, IndexError, UnicodeDecodeError … by the bytes it meets.
            self.refused += 1
            return None


def _parse(kind: type[Any], value: bytes) -> Any:
    element = kind()
    element.from_bytes(value)
    return element


def _library() -> SimpleNamespace:
    library = load()
    assert library is not None, "messages are read only where pycrate was found"
    return library


def _address(raw: bytes) -> int:
    if len(raw) == 4:
        return MAPPED | int.from_bytes(raw, "big")
    if len(raw) == 16:
        return int.from_bytes(raw, "big")
    raise ValueError("neither an IPv4 nor an IPv6 address")


def _addresses(element: Any, *names: str) -> tuple[int, ...]:
    """Return the addresses that an element carries, without all-zero ones."""
    found = (_address(element[name].get_val()) for name in names if not element[name].get_trans())
    return tuple(address for address in found if address not in (0, MAPPED))


def _gtpv2_end(value: bytes) -> InterfaceEnd:
    element = _parse(_library().gtpv2.FTEID, value)
    return InterfaceEnd(
        element["IF"].get_val(),
        element["TEID_GREKey"].get_val(),
        _addresses(element, "IPv4Addr", "IPv6Addr"),
    )


def _pfcp_end(value: bytes) -> NamedEnd:
    element = _parse(_library().pfcp.FTEID, value)
    if element["CH"].get_val():
        return NamedEnd(None, ())
    return NamedEnd(element["TEID"].get_val(), _addresses(element, "IPv4Addr", "IPv6Addr"))


def _outer_header(value: bytes) -> NamedEnd:
    element = _parse(_library().pfcp.OuterHeaderCreation, value)
    if not element["GTPU_UDP_IPv4"].get_val() and not element["GTPU_UDP_IPv6"].get_val():
        return NamedEnd(None, ())
    return NamedEnd(element["TEID"].get_val(), _addresses(element, "IPv4Addr", "IPv6Addr"))


def _session_end(value: bytes) -> NamedEnd:
    element = _parse(_library().pfcp.FSEID, value)
    return NamedEnd(element["SEID"].get_val(), _addresses(element, "IPv4Addr", "IPv6Addr"))


def _ue_addresses(value: bytes) -> tuple[int, ...]:
    element = _parse(_library().pfcp.UEIPAddress, value)
    return _addresses(element, "IPv4Addr", "IPv6Addr")


def _user_id(value: bytes) -> dict[str, bytes]:
    element = _parse(_library().pfcp.UserID, value)
    found = {}
    for name in ("IMSI", "MSISDN", "IMEI"):
        if not element[name].get_trans():
            found[name.lower()] = _digits(element[name]["Val"].get_val())
    return found


def _pdn_addresses(value: bytes) -> tuple[int, ...]:
    element = _parse(_library().gtpv2.PAA, value)
    raw = element["PDNAddress"].get_val()
    # A prefix length stands before an IPv6 address; with both, IPv6 comes first.
    parts = {1: (raw[:4],), 2: (raw[1:17],), 3: (raw[1:17], raw[17:21])}
    found = (_address(part) for part in parts.get(element["PDNType"].get_val(), ()))
    return tuple(address for address in found if address not in (0, MAPPED))


def _end_user_addresses(value: bytes) -> tuple[int, ...]:
    element = _parse(_library().gtpv1.EndUserAddr, value)
    raw = bytes(element["Addr"].get_val())
    if element["TypeOrg"].get_val() != 1:  # not IETF
        return ()
    # 0x21 IPv4, 0x57 IPv6, 0x8D both; an address that shall be given is left out or zero.
    parts = {4: (raw,), 16: (raw,), 20: (raw[:4], raw[4:])}
    found = (_address(part) for part in parts.get(len(raw), ()))
    return tuple(address for address in found if address not in (0, MAPPED))


def _digits(value: bytes) -> bytes:
    element = _parse(_library().nas.BufBCD, value)
    text: str = element.decode()
    if not text.isdecimal():
        raise ValueError("not digits")
    return text.encode("ascii")


@lru_cache(maxsize=CACHED)
def _name(value: bytes) -> str:
    """Read labels where their lengths fill the value: some nodes write plain text instead."""
    position = 0
    while position < len(value):
        position += 1 + value[position]
    if position == len(value):
        text: str = _parse(_library().nas.APN, value).decode()
    else:
        text = value.decode("ascii")
    if len(text) > MAX_NAME or not text.isprintable():
        raise ValueError("not a name")
    return text


def _plmn(element: Any) -> str:
    digits = element.decode()
    return f"{digits[:3]}-{digits[3:]}"


def _place(name: str, element: Any) -> str:
    """Write a cell or area as its PLMN and its numbers, without spare bits."""
    numbers = [part.get_val() for part in element if part._name not in ("PLMN", "spare")]
    return f"{name} {_plmn(element['PLMN'])}-{'-'.join(map(str, numbers))}"


@lru_cache(maxsize=CACHED)
def _location(value: bytes) -> str:
    element = _parse(_library().gtpv2.ULI, value)
    names = ("TAI", "ECGI", "CGI", "SAI", "RAI", "LAI")
    return ", ".join(_place(name, element[name]) for name in names if not element[name].get_trans())


@lru_cache(maxsize=CACHED)
def _old_location(value: bytes) -> str:
    element = _parse(_library().gtpv1.ULI, value)
    place = element["Loc"].get_alt()
    return _place({0: "CGI", 1: "SAI", 2: "RAI"}[element["Type"].get_val()], place)
