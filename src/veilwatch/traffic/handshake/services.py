"""Which application protocol a flow speaks, by its first payload bytes.

One function a protocol, each over all flows at once. `Openings` gives them the bytes as
columns, so that no function can read past the kept prefix: bytes that were not seen are zero,
and every test states how many it needs. Ports decide only where bytes alone cannot.
"""

from __future__ import annotations

# NumPy types the result of == as Any.
# mypy: disable-error-code="no-any-return"
from collections.abc import Callable
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.schema.flows import DTLS_OVER
from veilwatch.traffic.handshake.dns import DNS_PORTS
from veilwatch.traffic.handshake.quic import is_google, is_known

Mask = npt.NDArray[np.bool_]

_TCP: Final = 6
_UDP: Final = 17

OPENING_BYTES: Final = 28
"""Bytes laid out as columns: no test but a search of text looks further."""


class Side:
    """First payload bytes of one direction of every flow.

    Attributes
    ----------
    used
        uint8 array, bytes of the prefix that were seen.
    size
        uint64 array, length of the first payload on the wire, without a PROXY header in it; where
        that header came alone, of what was seen behind it.
    """

    def __init__(self, records: npt.NDArray[np.void], direction: int) -> None:
        way, start = records["way"][:, direction], records["start"][:, direction]
        self._prefix: npt.NDArray[np.uint8] = start["prefix"]
        self._bytes: npt.NDArray[np.uint8] = np.ascontiguousarray(self._prefix[:, :OPENING_BYTES].T)
        self.used: npt.NDArray[np.uint8] = np.ascontiguousarray(way["prefix_used"])
        first = way["first_payload"].astype(np.uint64)
        skip = start["prefix_skip"].astype(np.uint64)
        self.size: npt.NDArray[np.uint64] = np.where(
            skip == 0, first, np.where(first > skip, first - skip, self.used)
        )

    @cached_property
    def _opening(self) -> npt.NDArray[np.uint64]:
        """The first eight bytes as one big-endian number."""
        return self.number(0, 8)

    def byte(self, offset: int) -> npt.NDArray[np.uint8]:
        """Return the byte at `offset`, 0 where it was not seen."""
        column: npt.NDArray[np.uint8] = self._bytes[offset]
        return column

    def number(self, offset: int, width: int) -> npt.NDArray[np.uint64]:
        """Return `width` bytes from `offset` on as a big-endian number."""
        value = np.zeros(self._bytes.shape[1], np.uint64)
        for i in range(offset, offset + width):
            value = value << np.uint64(8) | self.byte(i)
        return value

    def starts(self, *literals: bytes) -> Mask:
        """Tell where the side begins with one of `literals`."""
        found = np.zeros(len(self.used), np.bool_)
        for literal in literals:
            word = literal[:8]
            shift = np.uint64(64 - 8 * len(word))
            equal = self._opening >> shift == np.uint64(int.from_bytes(word, "big"))
            equal &= self.used >= len(literal)
            if len(literal) > 8 and equal.any():
                equal &= self.has(8, literal[8:])
            found |= equal
        return found

    def has(self, offset: int, literal: bytes) -> Mask:
        """Tell where `literal` stands at `offset`."""
        wanted = np.frombuffer(literal, np.uint8)[:, np.newaxis]
        equal: Mask = (self._bytes[offset : offset + len(literal)] == wanted).all(axis=0)
        return equal & (self.used >= offset + len(literal))

    def holds(self, literal: bytes, among: Mask) -> Mask:
        """Tell where `literal` stands anywhere, looking only at the flows `among`."""
        found = np.zeros(len(self.used), np.bool_)
        for row in np.flatnonzero(among):
            found[row] = literal in self._prefix[row].tobytes()
        return found


class Openings:
    """What the recognisers see of flows: both sides, the transport and the ports."""

    def __init__(self, records: npt.NDArray[np.void]) -> None:
        self.sides = Side(records, 0), Side(records, 1)
        self.tcp: Mask = records["protocol"] == _TCP
        self.udp: Mask = records["protocol"] == _UDP
        self.dtls: Mask = np.isin(records["protocol"], DTLS_OVER)
        self._ports = (
            np.ascontiguousarray(records["src_port"]),
            np.ascontiguousarray(records["dst_port"]),
        )

    def port(self, *numbers: int) -> Mask:
        """Tell where either port is one of `numbers`."""
        return np.isin(self._ports[0], numbers) | np.isin(self._ports[1], numbers)

    def either(self, test: Callable[[Side], Mask]) -> Mask:
        """Tell where `test` holds for at least one side."""
        return test(self.sides[0]) | test(self.sides[1])

    def starts(self, *literals: bytes) -> Mask:
        """Tell where either side begins with one of `literals`."""
        return self.either(lambda side: side.starts(*literals))


def _tls(flows: Openings) -> Mask:
    """Records of SSL 3.0 to TLS 1.3, also when the handshake was not seen; SSL 2.0 hellos."""

    def record(side: Side) -> Mask:
        content, length = side.byte(0), side.number(3, 2)
        version = (side.byte(1) == 3) & (side.byte(2) <= 4)
        plausible = (length > 0) & (length <= 16384 + 2048)
        return (side.used >= 5) & (content >= 20) & (content <= 24) & version & plausible

    def old_hello(side: Side) -> Mask:
        exact = side.number(0, 2) == (side.size - 2 | 0x8000)
        return (side.used >= 5) & exact & side.has(2, b"\x01\x03")

    return flows.tcp & flows.either(lambda side: record(side) | old_hello(side))


def _dtls(flows: Openings) -> Mask:
    def record(side: Side) -> Mask:
        content, version = side.byte(0), side.number(1, 2)
        known = (version >= 0xFEFC) | (version == 0x0100)  # the latter by old OpenSSL
        fits = side.number(11, 2) + np.uint64(13) <= side.size
        return (side.used >= 13) & (content >= 20) & (content <= 25) & known & fits

    return flows.dtls & flows.either(record)


def _quic(flows: Openings) -> Mask:
    def header(side: Side) -> Mask:
        first = side.byte(0)
        new = (first & 0xC0 == 0xC0) & is_known(side.number(1, 4)) & (side.byte(5) <= 0x77)
        old = (first & 0xC9 == 0x09) & is_google(side.number(9, 4))
        return (side.used >= 13) & (new | old)

    return flows.udp & flows.either(header)


def _dns(flows: Openings) -> Mask:
    """Plausible header on a DNS port; over TCP behind a length of two bytes."""

    def header(side: Side, at: int) -> Mask:
        opcode = side.byte(at + 2) >> 3 & 0x0F
        questions, others = side.number(at + 4, 2), side.number(at + 6, 6)
        return (
            (side.used >= at + 12)
            & (opcode <= 6)
            & (questions <= 16)
            & ((questions > 0) | (others > 0))
            & (side.number(at + 6, 2) <= 512)
        )

    over_udp = flows.udp & flows.either(lambda side: header(side, 0))
    over_tcp = flows.tcp & flows.either(lambda side: header(side, 2) & (side.number(0, 2) >= 12))
    return flows.port(*DNS_PORTS) & (over_udp | over_tcp)


def _rtsp(flows: Openings) -> Mask:
    return flows.starts(
        b"RTSP/1.0",
        b"RTSP/2.0",
        b"OPTIONS rtsp:",
        b"DESCRIBE rtsp:",
        b"SETUP rtsp:",
        b"GET_PARAMETER rtsp:",
    )


def _sip(flows: Openings) -> Mask:
    return flows.starts(
        b"SIP/2.0 ", b"INVITE sip", b"REGISTER sip", b"OPTIONS sip", b"SUBSCRIBE sip",
        b"NOTIFY sip", b"MESSAGE sip", b"PUBLISH sip", b"BYE sip", b"ACK sip", b"CANCEL sip",
    )  # fmt: skip


def _ssdp(flows: Openings) -> Mask:
    return flows.udp & (flows.starts(b"M-SEARCH *", b"NOTIFY * HTTP", b"HTTP/1.1"))


def _http(flows: Openings) -> Mask:
    return flows.tcp & flows.starts(
        b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"CONNECT ", b"PATCH ",
        b"OPTIONS /", b"OPTIONS *", b"OPTIONS http",  # RTSP and SIP have OPTIONS too
        b"TRACE ", b"PROPFIND ", b"HTTP/1.0", b"HTTP/1.1", b"PRI * HTTP/2.0",
    )  # fmt: skip


def _ssh(flows: Openings) -> Mask:
    return flows.tcp & flows.starts(b"SSH-1.", b"SSH-2.")


def _smb(flows: Openings) -> Mask:
    """SMB 1 to 3 behind a NetBIOS session header (MS-SMB2, section 2.1)."""

    def message(side: Side) -> Mask:
        magic = side.number(5, 3) == int.from_bytes(b"SMB", "big")
        protocol = side.byte(4)
        return (
            (side.used >= 8)
            & (side.byte(0) == 0)
            & magic
            & ((protocol == 0xFF) | (protocol == 0xFE) | (protocol == 0xFD))
        )

    return flows.tcp & flows.either(message)


def _netbios(flows: Openings) -> Mask:
    """Session requests on TCP (RFC 1002, section 4.3), names and datagrams on UDP 137, 138."""
    session = flows.tcp & flows.sides[0].starts(b"\x81\x00\x00\x44")
    names = flows.port(137) & flows.either(lambda s: (s.used >= 12) & (s.number(4, 2) <= 1))
    datagrams = flows.port(138) & flows.either(
        lambda s: (s.used >= 14) & (s.byte(0) >= 0x10) & (s.byte(0) <= 0x16)
    )
    return session | (flows.udp & (names | datagrams))


def _greeted_220(flows: Openings) -> Mask:
    return flows.tcp & flows.starts(b"220 ", b"220-")


def _smtp(flows: Openings) -> Mask:
    greeted = _greeted_220(flows)
    named = flows.either(lambda s: s.holds(b"SMTP", greeted))
    mailer = flows.starts(b"EHLO ", b"HELO ", b"ehlo ", b"helo ")
    return flows.tcp & (mailer | (greeted & (named | flows.port(25, 465, 587, 2525))))


def _ftp(flows: Openings) -> Mask:
    greeted = _greeted_220(flows)
    command = flows.starts(b"USER ", b"AUTH TLS", b"AUTH SSL", b"FEAT\r\n", b"SYST\r\n")
    return flows.tcp & ((greeted & ~flows.port(25, 465, 587, 2525)) | (command & flows.port(21)))


def _pop3(flows: Openings) -> Mask:
    greeted = flows.starts(b"+OK ", b"+OK\r\n")
    command = flows.starts(b"USER ", b"CAPA\r\n", b"APOP ", b"STLS\r\n")
    return flows.tcp & (greeted | (command & flows.port(110)))


def _imap(flows: Openings) -> Mask:
    return flows.tcp & flows.starts(b"* OK ", b"* PREAUTH ", b"* BYE ")


def _irc(flows: Openings) -> Mask:
    sure = flows.starts(b"NICK ", b"NOTICE AUTH", b"CAP LS")
    maybe = flows.starts(b"PASS ", b"USER ", b":", b"PING ", b"JOIN ")
    return flows.tcp & (sure | (maybe & flows.port(194, 6660, 6661, 6666, 6667, 6668, 6669, 7000)))


def _rdp(flows: Openings) -> Mask:
    """X.224 connection request or confirm with RDP negotiation (MS-RDPBCGR, section 2.2.1)."""

    def connection(side: Side) -> Mask:
        tpkt = side.starts(b"\x03\x00")
        kind = side.byte(5) & 0xF0
        whole = side.number(2, 2) == side.size
        return tpkt & (side.used >= 11) & whole & ((kind == 0xE0) | (kind == 0xD0))

    def negotiation(side: Side) -> Mask:
        kind = side.byte(11)
        request = (kind >= 1) & (kind <= 3) & side.has(13, b"\x08\x00")
        return request | side.has(11, b"Cookie: mstshash")

    likely = flows.either(lambda side: connection(side) & negotiation(side))
    return flows.tcp & (likely | (flows.port(3389) & flows.either(connection)))


def _vnc(flows: Openings) -> Mask:
    return flows.tcp & flows.starts(b"RFB 003.", b"RFB 004.")


def _telnet(flows: Openings) -> Mask:
    """Option negotiation: IAC, then WILL, WONT, DO or DONT (RFC 854)."""

    def negotiation(side: Side) -> Mask:
        verb = side.byte(1)
        return (side.used >= 3) & (side.byte(0) == 0xFF) & (verb >= 0xFB) & (verb <= 0xFE)

    return flows.tcp & flows.either(negotiation)


def _ntp(flows: Openings) -> Mask:
    def message(side: Side) -> Mask:
        version, mode = side.byte(0) >> 3 & 7, side.byte(0) & 7
        long_enough = (side.size >= 48) | ((mode >= 6) & (side.size >= 8))
        return (side.used > 0) & (version >= 1) & (version <= 4) & (mode >= 1) & long_enough

    return flows.udp & flows.port(123) & flows.either(message)


def _dhcp(flows: Openings) -> Mask:
    def version_4(side: Side) -> Mask:
        return side.starts(b"\x01\x01\x06", b"\x02\x01\x06", b"\x01\x06\x06", b"\x02\x06\x06")

    def version_6(side: Side) -> Mask:
        kind = side.byte(0)
        return (side.used >= 4) & (kind >= 1) & (kind <= 13)

    return flows.udp & (
        (flows.port(67, 68) & flows.either(version_4))
        | (flows.port(546, 547) & flows.either(version_6))
    )


def _stun(flows: Openings) -> Mask:
    """The magic cookie (RFC 8489), or a binding of RFC 3489 whose length is right."""

    def message(side: Side) -> Mask:
        kind, length = side.number(0, 2), side.number(2, 2)
        framed = (side.used >= 20) & (kind < 0x4000) & (length % 4 == 0)
        classic = (kind == 1) | (kind == 0x101) | (kind == 0x111)
        exact = length + 20 == side.size
        return framed & ((side.number(4, 4) == 0x2112A442) | (classic & exact))

    return (flows.udp | flows.tcp) & flows.either(message)


def _bittorrent(flows: Openings) -> Mask:
    """Peer wire (BEP 3), Kademlia messages (BEP 5) and UDP tracker connects (BEP 15)."""
    peers = flows.starts(b"\x13BitTorrent protocol")
    table = flows.starts(b"d1:ad2:id20:", b"d1:rd2:id20:", b"d1:eli", b"d2:ip6:", b"d1:q")
    tracker = flows.sides[0].starts(bytes.fromhex("0000041727101980"))
    return (flows.tcp & peers) | (flows.udp & (peers | table | tracker))


def _socks(flows: Openings) -> Mask:
    """Greetings of SOCKS 5 (RFC 1928) and SOCKS 4, whose sizes must be exact."""
    client, server = flows.sides
    methods = client.number(1, 1)
    five = (client.byte(0) == 5) & (methods >= 1) & (client.size == 2 + methods)
    five &= server.starts(b"\x05") & (server.size == 2)
    four = client.starts(b"\x04\x01", b"\x04\x02") & (client.size >= 9)
    answer = server.byte(1)
    four &= server.starts(b"\x00") & (server.size == 8) & (answer >= 0x5A) & (answer <= 0x5D)
    return flows.tcp & (five | four)


def _mqtt(flows: Openings) -> Mask:
    """CONNECT of MQTT 3.1 to 5.0; its length takes one or two bytes here."""

    def connect(side: Side) -> Mask:
        name = side.has(2, b"\x00\x04MQTT") | side.has(3, b"\x00\x04MQTT")
        name |= side.has(2, b"\x00\x06MQIsdp") | side.has(3, b"\x00\x06MQIsdp")
        return side.starts(b"\x10") & name

    return flows.tcp & flows.either(connect)


def _byte_set(*values: int) -> Mask:
    """Return a table that tells for each byte value whether it is one of `values`."""
    table = np.zeros(256, np.bool_)
    table[list(values)] = True
    return table


_LDAP_OPERATIONS: Final = _byte_set(0x42, 0x60, 0x61, 0x63, 0x64, 0x65, 0x66, 0x77, 0x78)
_TDS_REQUESTS: Final = _byte_set(0x01, 0x03, 0x10, 0x12)  # batch, call, login, pre-login
_KERBEROS_MESSAGES: Final = _byte_set(0x6A, 0x6B, 0x6C, 0x6D, 0x6E, 0x6F, 0x7E)


def _ber_message(side: Side, content_at: int) -> Mask:
    """Tell where a BER sequence holds, from `content_at` on, a message number and an operation.

    That is an LDAPMessage (RFC 4511, section 4.1.1) with a message number of 1 to 4 bytes.
    """
    found = np.zeros(len(side.used), np.bool_)
    for width in (1, 2, 3, 4):
        known = _LDAP_OPERATIONS[side.byte(content_at + 2 + width)]
        number = side.has(content_at, bytes((0x02, width)))
        found |= number & known & (side.used > content_at + 2 + width)
    return found


def _ldap(flows: Openings) -> Mask:
    def message(side: Side) -> Mask:
        sequence = side.byte(0) == 0x30
        if not sequence.any():  # usually none: spare the search
            return sequence
        found = (side.byte(1) < 0x80) & _ber_message(side, 2)
        for long_form, content_at in ((0x81, 3), (0x82, 4), (0x84, 6)):
            found |= (side.byte(1) == long_form) & _ber_message(side, content_at)
        return sequence & found

    return flows.either(message)


def _snmp(flows: Openings) -> Mask:
    """A BER sequence that begins with version 1, 2c (then the community) or 3."""

    def message(side: Side) -> Mask:
        found = np.zeros(len(side.used), np.bool_)
        for at, opening in ((2, b"\x30"), (3, b"\x30\x81"), (4, b"\x30\x82")):
            version, follows = side.byte(at + 2), side.byte(at + 3)
            community = (version <= 1) & (follows == 0x04)
            header = (version == 3) & (follows == 0x30)
            found |= side.starts(opening) & side.has(at, b"\x02\x01") & (community | header)
        return found

    return flows.udp & flows.either(message)


def _kerberos(flows: Openings) -> Mask:
    """An application tag of RFC 4120 and, close behind, protocol version 5."""

    def message(side: Side, at: int) -> Mask:
        known = _KERBEROS_MESSAGES[side.byte(at)]
        for_version = np.zeros(len(side.used), np.bool_)
        if known.any():  # usually none: spare the search
            for offset in range(at + 4, at + 16):
                for_version |= side.has(offset, b"\x03\x02\x01\x05")
        return known & for_version

    over_tcp = flows.tcp & flows.either(lambda s: (s.byte(0) == 0) & message(s, 4))
    return over_tcp | (flows.udp & flows.either(lambda s: message(s, 0)))


def _dcerpc(flows: Openings) -> Mask:
    """Connection-oriented PDUs, little endian (C706, chapter 12)."""

    def message(side: Side) -> Mask:
        kind = side.byte(2)
        return side.starts(b"\x05\x00") & (kind <= 19) & side.has(4, b"\x10\x00\x00\x00")

    return flows.tcp & flows.either(message)


def _tds(flows: Openings) -> Mask:
    """A request to SQL Server with its exact length (MS-TDS, section 2.2.3)."""
    client = flows.sides[0]
    request = _TDS_REQUESTS[client.byte(0)] & (client.byte(1) & 0xF5 == 1)  # end of message
    exact = client.number(2, 2) == client.size
    return flows.tcp & request & exact & client.has(7, b"\x00")


def _mysql(flows: Openings) -> Mask:
    """A server greeting: packet 0, protocol 10, version text, exact length."""

    def greeting(side: Side) -> Mask:
        length = side.number(0, 1) | side.number(1, 1) << np.uint64(8)
        digit = (side.byte(5) >= 0x30) & (side.byte(5) <= 0x39)
        return (side.used >= 6) & side.has(2, b"\x00\x00\x0a") & digit & (side.size == length + 4)

    return flows.tcp & flows.either(greeting)


def _postgresql(flows: Openings) -> Mask:
    """Start-up of protocol 3, or a request for TLS or GSS, with its exact length."""
    client = flows.sides[0]
    code = client.number(4, 4)
    known = (code == 0x00030000) | (code == 80877103) | (code == 80877104)
    exact = client.number(0, 4) == client.size
    return flows.tcp & (client.used >= 8) & known & exact


def _xmpp(flows: Openings) -> Mask:
    markup = flows.tcp & flows.starts(b"<?xml ", b"<stream:")
    stanza = flows.tcp & flows.starts(b"<iq ", b"<presence ", b"<message ")
    opened = flows.either(lambda side: side.holds(b"stream:stream", markup))
    return opened | (stanza & flows.port(5222, 5269))


def _stratum(flows: Openings) -> Mask:
    """JSON-RPC of mining pools."""
    json = flows.tcp & flows.starts(b'{"', b'{ "')
    return flows.either(
        lambda side: side.holds(b'"mining.', json) | side.holds(b'"method":"login"', json)
    )


def _wireguard(flows: Openings) -> Mask:
    def message(side: Side) -> Mask:
        initiation = side.starts(b"\x01\x00\x00\x00") & (side.size == 148)
        return initiation | (side.starts(b"\x02\x00\x00\x00") & (side.size == 92))

    return flows.udp & flows.either(message)


def _openvpn(flows: Openings) -> Mask:
    """Hard resets of client and server, version 2 (over TCP behind a length)."""
    client, server = flows.sides
    client_reset, server_reset = b"\x38", b"\x40"
    over_udp = flows.udp & client.starts(client_reset) & server.starts(server_reset)
    over_tcp = flows.tcp & client.has(2, client_reset) & server.has(2, server_reset)
    over_tcp &= client.number(0, 2) + np.uint64(2) == client.size
    return (over_udp & (client.size >= 14) & (server.size >= 14)) | over_tcp


def _tftp(flows: Openings) -> Mask:
    client = flows.sides[0]
    request = flows.udp & flows.port(69) & client.starts(b"\x00\x01", b"\x00\x02")
    return client.holds(b"octet\0", request) | client.holds(b"netascii\0", request)


_RECOGNISERS: Final[dict[str, Callable[[Openings], Mask]]] = {
    "tls": _tls,
    "quic": _quic,
    "dns": _dns,
    "rtsp": _rtsp,
    "sip": _sip,
    "ssdp": _ssdp,
    "http": _http,
    "ssh": _ssh,
    "smb": _smb,
    "smtp": _smtp,
    "ftp": _ftp,
    "pop3": _pop3,
    "imap": _imap,
    "irc": _irc,
    "rdp": _rdp,
    "vnc": _vnc,
    "dtls": _dtls,
    "stun": _stun,
    "bittorrent": _bittorrent,
    "socks": _socks,
    "mqtt": _mqtt,
    "kerberos": _kerberos,
    "ldap": _ldap,
    "snmp": _snmp,
    "dcerpc": _dcerpc,
    "tds": _tds,
    "mysql": _mysql,
    "postgresql": _postgresql,
    "xmpp": _xmpp,
    "stratum": _stratum,
    "wireguard": _wireguard,
    "openvpn": _openvpn,
    "tftp": _tftp,
    "dhcp": _dhcp,
    "ntp": _ntp,
    "netbios": _netbios,
    "telnet": _telnet,
}
"""Recognisers in order: where two hold, the first names the flow."""

SERVICES: Final = ("", *_RECOGNISERS)
"""Every value of the column `service`."""


def recognise_services(records: npt.NDArray[np.void]) -> npt.NDArray[np.str_]:
    """Name the application protocol of every flow.

    Parameters
    ----------
    records
        Array of `FLOW_RECORD_DTYPE`, shape (n,); read are `prefix`, `prefix_used`,
        `prefix_skip`, `first_payload`, `protocol` and the ports.

    Returns
    -------
    numpy.ndarray
        One of `SERVICES` a flow, '' where none fits.
    """
    flows = Openings(records)
    codes = np.zeros(len(records), np.uint8)
    for code, recogniser in enumerate(_RECOGNISERS.values(), start=1):
        codes[(codes == 0) & recogniser(flows)] = code
    return np.array(SERVICES)[codes]
