"""Connections with an end: whatever the peer does, it is over after a stated time."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from veilwatch.errors import VeilwatchError
from veilwatch.sinks.address import Address
from veilwatch.sinks.base import CONNECT_TIMEOUT_S


def tls_context(address: Address) -> ssl.SSLContext:
    """Return how to talk TLS with a peer: its certificate is always checked.

    Raises
    ------
    VeilwatchError
        If a file that `ca` or `cert` names cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=address.parameters.get("ca"))
        if "cert" in address.parameters:
            context.load_cert_chain(address.parameters["cert"])
    except (OSError, ssl.SSLError) as error:
        raise VeilwatchError(
            f"cannot use the certificates: {error.strerror or error}", where=address.shown
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@contextmanager
def opened(
    host: str, port: int, context: ssl.SSLContext | None, seconds: float
) -> Iterator[socket.socket]:
    """Connect, with TLS where there is a context, and cut the connection after some time.

    A socket's timeout counts for one read; a peer that sends a byte a second needs an end too.
    Looking up a name has the end that the system's resolver gives it.

    Parameters
    ----------
    host, port
        Where to.
    context
        None for a plain connection.
    seconds
        From connected to closed.

    Raises
    ------
    OSError
        If the peer is not there; `TimeoutError` if the time is over.
    """
    with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S) as plain:
        # The guard is another name for the same connection: wrapping in TLS takes the first one.
        guard, over = plain.dup(), threading.Event()
        timer = threading.Timer(seconds, _cut, (guard, over))
        timer.daemon = True
        timer.start()
        try:
            plain.settimeout(seconds)
            if context is None:
                yield plain
            else:
                with context.wrap_socket(plain, server_hostname=host) as secured:
                    yield secured
            if over.is_set():  # our own cut looks like a peer that has closed
                raise TimeoutError
        except (OSError, http.client.HTTPException) as error:
            if over.is_set():
                raise TimeoutError from error
            raise
        finally:
            timer.cancel()
            guard.close()


def _cut(guard: socket.socket, over: threading.Event) -> None:
    over.set()
    with suppress(OSError):  # it is closed already
        guard.shutdown(socket.SHUT_RDWR)
