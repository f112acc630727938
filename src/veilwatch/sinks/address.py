"""Where a sink sends to: a URL, taken apart and checked.

Credentials are kept out of everything that is shown: `Address.shown` and `repr` never hold them. A
path at a web server is one of them: chats and tickets take whoever knows it. Its first segment is
shown where that is a plain word.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from veilwatch.errors import VeilwatchError

MAX_SECRET_BYTES: Final = 4096
"""Longest password or key file read: anything longer is some other file, named by mistake."""

MAX_WORD: Final = 12
"""Longest segment of a path that is shown, characters: `services` and `webhooks` are shorter."""

_WORD: Final = re.compile(r"[A-Za-z][a-z-]*\d{0,2}", re.ASCII)
"""A segment that looks like a word and not like a key: lower-case letters but for the first, dashes
between them, two digits at most at the end. What is drawn at random mixes them."""

MARK: Final = "…"
"""Stands for the part of a path that is not shown."""

URL_FILE: Final = "url-file"
"""Parameter of every sink: the file with the URL, where its path is a secret."""

CREDENTIALS: Final = {
    "password-file": "file with the password, so that it does not stand in the URL",
    "password-env": "environment variable with the password",
}
"""Parameters of every sink that can authenticate."""


@dataclass(frozen=True, slots=True)
class Address:
    """A sink's URL.

    Attributes
    ----------
    scheme
        In lower case.
    host
        Name or address, without brackets; '' for a sink on this machine.
    port
        0 where the URL names none.
    path
        Decoded.
    user, password
        '' where there are none.
    parameters
        What stands after `?`.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The URL without credentials and parameters, of a path at a web server its first word.

        Two that differ in what is left out are told apart by a few digits of its hash.
        """
        path = self.path
        if self.scheme.rpartition("+")[2] in ("http", "https"):
            path = shown_path(path)
            if path != self.path:
                path += hashlib.blake2b(self.path.encode(), digest_size=3).hexdigest()
        return f"{self._place}{path}"

    @property
    def shown_before(self) -> str:
        """What earlier releases showed, and named the sink in the spool: with the whole path."""
        return f"{self._place}{self.path}"

    @property
    def _place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and "," not in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{host}{port}"

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole-number parameter within its bounds.

        Raises
        ------
        VeilwatchError
            If it is no number or out of bounds.
        """
        text = self.parameters.get(name, str(default))
        if not (text.isascii() and text.isdigit() and least <= int(text[:20]) <= most):
            raise VeilwatchError(
                f"{name}={text[:40]} is not a whole number from {least} to {most}", where=self.shown
            )
        return int(text)

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """Return a parameter that takes one of some words.

        Raises
        ------
        VeilwatchError
            If it is another word.
        """
        word = self.parameters.get(name, default)
        if word not in choices:
            raise VeilwatchError(
                f"{name}={word[:40]} is not known",
                where=self.shown,
                hint=_nearest(word, choices) or f"one of {', '.join(sorted(choices))}",
            )
        return word


def shown_path(path: str) -> str:
    """Return the path of a URL without what may be a secret in it.

    The first segment is left where it is a word of at most `MAX_WORD` characters: `hooks`, `api-v2`
    and `Services` are, `veilwatch-alerts` is too long, `k3v9`, `aBc`, `T024BE7LD` look like keys.

    Examples
    --------
    >>> shown_path("/services/T0/B0/XXXX"), shown_path("/alerts"), shown_path("/k3v9xq/soc")
    ('/services/…', '/alerts', '/…')
    """
    first, slash, rest = path.removeprefix("/").partition("/")
    begin = path[: len(path) - len(path.removeprefix("/"))]
    if first and not (len(first) <= MAX_WORD and _WORD.fullmatch(first)):
        return f"{begin}{MARK}"
    return f"{begin}{first}/{MARK}" if rest else f"{begin}{first}{slash}"


def read_url_file(url: str, scheme: str) -> str:
    """Return the URL that the file leads to which a URL names, or the URL itself.

    What the file holds begins with the sink's scheme, or with http or https. Other parameters of
    the URL that names it are added.

    Raises
    ------
    VeilwatchError
        If the file cannot be read, everybody may read it, or it holds another kind of URL.
    """
    _, mark, query = url.partition("?")
    if not mark or URL_FILE not in query:
        return url
    named = dict(parse_qsl(query, keep_blank_values=True))
    if URL_FILE not in named:
        return url
    path = Path(named.pop(URL_FILE))
    _check_private(path)
    held = secret_file(Address(scheme, parameters={URL_FILE: str(path)}), URL_FILE).strip()
    plain = scheme.rpartition("+")[2]
    if held.lower().startswith(f"{plain}://"):
        held = f"{scheme}{held[len(plain) :]}"
    if not held.lower().startswith(f"{scheme}://") or any(c.isspace() for c in held):
        raise VeilwatchError(
            f"holds no URL of a sink of the kind {scheme}",
            where=path,
            hint=f"one line that begins with {plain}://",
        )
    if not named:
        return held
    return f"{held}{'&' if '?' in held else '?'}{urlencode(named, quote_via=quote)}"


def _check_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise VeilwatchError(
            f"cannot read the secret: {error.strerror or error}", where=path
        ) from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise VeilwatchError(
            "holds a secret and everybody may read or change it",
            where=path,
            hint=f"chmod o= {path}",
        )


def parse(url: str, parameters: Collection[str] = ()) -> Address:
    """Take a sink's URL apart.

    Parameters
    ----------
    url
        `scheme://user:password@host:port/path?name=value`.
    parameters
        Names that may stand after `?`.

    Raises
    ------
    VeilwatchError
        If it is no URL, or names a parameter that the sink does not know, or one twice.
    """
    scheme = scheme_of(url)
    if URL_FILE in parameters:
        url = read_url_file(url, scheme)
    try:
        parts = urlsplit(url)
        if "@" in f"{parts.path}{parts.query}{parts.fragment}":
            # A / ? or # within a password ends the host there: what follows must not be shown.
            raise VeilwatchError(
                "an @ behind the host",
                where=f"{scheme}://…",
                hint="write special characters of passwords and paths as %2F, %3F, %23, %40",
            )
        # Kafka names several brokers with commas; what is left then has no single port.
        several = "," in parts.netloc
        host = parts.netloc.rpartition("@")[2] if several else parts.hostname or ""
        port = 0 if several else parts.port or 0
        found = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise VeilwatchError(f"not a URL: {_harmless(error)}", where=f"{scheme}://…") from error
    address = Address(scheme, host, port, unquote(parts.path))
    if parts.fragment:
        raise VeilwatchError("a URL of a sink has no part after #", where=address.shown)
    for name, _ in found:
        if name not in parameters:
            raise VeilwatchError(
                f"unknown parameter {name[:40]!r}",
                where=address.shown,
                hint=_nearest(name, parameters)
                or (f"known: {', '.join(sorted(parameters))}" if parameters else "it takes none"),
            )
    named = dict(found)
    if len(named) < len(found):
        raise VeilwatchError("a parameter stands there twice", where=address.shown)
    login = parts.netloc.rpartition("@")[0]
    user, _, password = login.partition(":")
    return Address(
        scheme,
        host,
        port,
        address.path,
        unquote(user),
        unquote(password) or _secret(address, named, "password"),
        named,
    )


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case.

    Raises
    ------
    VeilwatchError
        If there is none.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or not scheme:
        # The text is not repeated: a URL mistyped this way may hold a password.
        raise VeilwatchError("a sink is named by a URL", hint="such as eve+file:///var/log/eve")
    return scheme.lower()


def nearest_scheme(scheme: str, known: Collection[str]) -> str:
    """Return advice for a scheme that is not known."""
    # Half of a name says more than letters in common: eve is part of eve+file.
    parts = [name for name in known if scheme in name.split("+")]
    near = f"did you mean {' or '.join(parts)}?" if parts else _nearest(scheme, known)
    return near or f"known: {', '.join(known)}"


def secret_file(address: Address, name: str) -> str:
    """Return the secret in the file that parameter `name` leads to, '' where there is none.

    Raises
    ------
    VeilwatchError
        If the file cannot be read or is too long for a secret.
    """
    if name not in address.parameters:
        return ""
    path = Path(address.parameters[name])
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_SECRET_BYTES + 1)
        if len(data) > MAX_SECRET_BYTES:
            raise VeilwatchError(f"longer than {MAX_SECRET_BYTES} bytes", where=path)
        return data.decode().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "it is not UTF-8"
        raise VeilwatchError(f"cannot read the secret: {what}", where=path) from error


def _secret(address: Address, named: Mapping[str, str], what: str) -> str:
    variable = named.get(f"{what}-env", "")
    if variable:
        if variable not in os.environ:
            raise VeilwatchError(f"environment variable {variable} is not set", where=address.shown)
        return os.environ[variable]
    return secret_file(Address(address.scheme, parameters=named), f"{what}-file")


def _nearest(word: str, known: Collection[str]) -> str:
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def _harmless(error: ValueError) -> str:
    # urllib repeats the port it could not read, which is a password where an @ was forgotten.
    return "bad port" if "port" in str(error).lower() else "bad host or query"
