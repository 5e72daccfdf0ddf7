"""The HTTP parser of the server: httptools, as uvicorn runs it, with bounds on what comes before a body.

httptools parses faster than h11 but bounds nothing: a header may be endless, or never end. Here a request's line and
headers have at most `MAX_HEADER_BYTES` and `MAX_HEADERS`, and arrive within `HEADER_TIMEOUT` seconds; a connection has
at most `MAX_PIPELINED` requests waiting; and a server has a bounded number of connections.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.problems import problem_response

MAX_HEADER_BYTES = 64 * 1024
"""Of a request's line and headers together, of a chunk's header, or of trailers."""
MAX_HEADERS = 100
"""Header fields of a request, trailers included."""
MAX_PIPELINED = 16
"""Requests of one connection that wait for an earlier one's response."""
HEADER_TIMEOUT = 10.0
"""Seconds from a connection, or a request's first byte, to the end of its headers."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    max_connections: ClassVar[int] = 2048
    """Connections that a server has at once; a further one is refused."""

    _header_timer: asyncio.TimerHandle | None = None
    _unparsed = 0  # bytes since the last complete header, piece of a body, or message

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection where there are too many, else wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(503, "not_ready", "this server has too many connections; try again soon")
        else:
            self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_header_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse a header that is too long."""
        if self.transport.is_closing():
            return
        self._unparsed += len(data)
        if self._header_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_header()
        super().data_received(data)
        if self._unparsed > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._refuse(431, "too_large", f"the request's header has more than {MAX_HEADER_BYTES:,} bytes; send less")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Raise where there are too many fields, which ends the connection."""
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many header fields")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Raise where too many requests wait, which ends the connection."""
        self._stop_header_timer()
        self._unparsed = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many pipelined requests")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body has arrived."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived."""
        self._unparsed = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text says no more
        """Answer what is not HTTP."""
        self._refuse(400, "invalid", "this is not an HTTP request that this server can read")

    def _expect_header(self) -> None:
        self._stop_header_timer()
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT, self._header_late)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_late(self) -> None:
        self._refuse(408, "timeout", f"the request's header did not arrive within {HEADER_TIMEOUT:g} s; send it again")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer and close, unless a response has begun on this connection."""
        self._stop_header_timer()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            response = problem_response(ApiError(status, code, message, {"Connection": "close"}))  # type: ignore[arg-type]
            fields = b"".join(b"%b: %b\r\n" % field for field in response.raw_headers)
            self.transport.write(b"HTTP/1.1 %d \r\n%b\r\n%b" % (status, fields, bytes(response.body)))
        self.transport.close()


def limited_protocol(max_connections: int) -> type[LimitedHttpProtocol]:
    """The protocol of a server with a number of connections."""
    return type("BoundedHttpProtocol", (LimitedHttpProtocol,), {"max_connections": max_connections})
