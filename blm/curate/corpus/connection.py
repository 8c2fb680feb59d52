"""One HTTP request to an address that was checked before: the name is not resolved again, and all must end in time."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from http.client import HTTPS_PORT, HTTPConnection, HTTPResponse
from threading import Timer
from time import monotonic
from typing import Self


class CheckedConnection:
    """A connection to one of `addresses` (IP) for `host`; a context manager that closes it.

    `timeout_s` is for everything, also where a byte arrives now and then: whatever happened by then, leaving the
    context raises TimeoutError if it has passed.
    """

    def __init__(self, scheme: str, host: str, port: int, addresses: list[str], timeout_s: float) -> None:
        self._connection = HTTPConnection(host, port, timeout=timeout_s)
        self._tls: ssl.SSLContext | None = None
        if scheme == "https":
            self._tls = ssl.create_default_context()
            self._connection.default_port = HTTPS_PORT
        self._addresses = addresses
        self._timeout_s = timeout_s
        self._late = False
        self._timer: Timer | None = None
        self._socket: socket.socket | None = None

    def get(self, path: str) -> HTTPResponse:
        """Ask for a path; after the time has passed, `read` of the answer gives what has arrived.

        Raises:
            OSError, http.client.HTTPException: no answer, a bad one, or not in time.
        """
        connection, until = self._connection, monotonic() + self._timeout_s
        plain = self._socket = connection.sock = self._connected(until)
        self._timer = Timer(max(0.0, until - monotonic()), self._stop)
        self._timer.daemon = True
        self._timer.start()
        if self._tls:
            secured = self._tls.wrap_socket(
                plain, server_hostname=connection.host, do_handshake_on_connect=False
            )
            self._socket = connection.sock = secured
            secured.do_handshake()
        connection.request("GET", path, headers={"Accept-Encoding": "identity", "User-Agent": "blm"})
        return connection.getresponse()

    def _connected(self, until: float) -> socket.socket:
        failure: OSError = OSError("no address")
        for address in self._addresses:
            try:
                return socket.create_connection(
                    (address, self._connection.port), max(0.01, until - monotonic())
                )
            except OSError as error:
                failure = error
        raise failure

    def _stop(self) -> None:
        """Whoever reads or writes gets an end or an error."""
        self._late = True
        if self._socket is None:
            return
        with suppress(OSError):
            # Of the plain socket's class: that of TLS would also forget its state, which the reader uses.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._timer:
            self._timer.cancel()
        self._connection.close()
        # A single read has no more time either, and may find that out before the timer does.
        late = self._late or isinstance(error, TimeoutError)
        if late and (error is None or isinstance(error, Exception)):
            raise TimeoutError(f"no whole answer within {self._timeout_s:g} s") from error
