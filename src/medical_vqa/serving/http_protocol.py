"""The HTTP parser of the server: httptools, as uvicorn runs it, with bounds on what a client may make it do.

httptools parses faster than h11 but bounds nothing: a header may be endless, or never end. Here a request's line and
headers have at most `MAX_HEADER_BYTES` and `MAX_HEADERS`, its address `MAX_ADDRESS_BYTES`, and all of it arrives within
`HEADER_TIMEOUT` seconds; a body does not consist of tiny chunks; a connection has at most `MAX_PIPELINED` requests
waiting, and is ended where its client reads nothing for `WRITE_TIMEOUT` seconds; and a server has a bounded number of
connections. One too many takes the place of the connection that has waited longest for its client, so that clients that
send nothing keep nobody out. A connection that ends before its body has arrived is not closed at once: the system would
reset it, and its client never read why.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.problems import problem_response

MAX_HEADER_BYTES = 64 * 1024
"""Of a request's line and headers together, of a chunk's header, or of trailers."""
MAX_ADDRESS_BYTES = 8 * 1024
"""Of a request's path and query: thousands of parameters take long to parse."""
MAX_HEADERS = 100
"""Header fields of a request, trailers included."""
MAX_PIPELINED = 16
"""Requests of one connection that wait for an earlier one's response."""
HEADER_TIMEOUT = 10.0
"""Seconds from a connection, or a request's first byte, to the end of its headers."""
WRITE_TIMEOUT = 20.0
"""Seconds in which a client must read some of a response that is larger than the system's buffers."""
LINGER_TIMEOUT = 20.0
"""Seconds in which a client may send the rest of a body that was refused, which is read and dropped."""
LINGER_PAUSE = 0.02
"""Seconds between two pieces that are dropped, each of at most 256 KiB."""
MAX_LINGERING = 16
"""Connections that linger so at once; further ones are closed, since what they send costs time to drop."""
MAX_SMALL_PIECES = 10_000
"""Pieces of a body after which they must have `LEAST_PIECE` bytes on average: each takes time, however small."""
LEAST_PIECE = 64
"""Bytes."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    max_connections: ClassVar[int] = 2048
    """Connections that a server has at once; a further one is refused while all others have requests to answer."""
    waiting_for_clients: ClassVar[dict[LimitedHttpProtocol, None]] = {}
    """Connections without a complete request, or whose client does not read; those that wait longest come first."""
    lingering_connections: ClassVar[set[LimitedHttpProtocol]] = set()
    """Those whose refused body is read and dropped."""

    _header_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _unparsed = 0  # bytes since the last complete header, piece of a body, or message
    _pieces = 0  # of this request's body
    _piece_bytes = 0
    _fault = (400, "invalid", "this is not an HTTP request that this server can read")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request; of too many connections, end the one that has waited longest, or else this one."""
        super().connection_made(_LingeringTransport(transport, self))  # type: ignore[arg-type]
        if len(self.connections) > self.max_connections:
            longest = next(iter(self.waiting_for_clients), None)
            if longest is None:
                self._refuse(503, "not_ready", "this server has too many connections; try again soon")
                return
            longest._give_way()
        self._wait_for_client()
        self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_header_timer()
        self._stop_write_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self.waiting_for_clients.pop(self, None)
        self.lingering_connections.discard(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the connection once it has answered; one that lingers, now."""
        if self.lingering:
            self.transport.abort()
        else:
            super().shutdown()

    @property
    def lingering(self) -> bool:
        """Whether the rest of a body that was refused is read and dropped."""
        return self in self.lingering_connections

    def linger(self, transport: asyncio.Transport) -> bool:
        """Whether to leave a transport open for now that is to be closed: its client is still sending a body."""
        if self.lingering:
            return True
        if self.cycle is None or not self.cycle.more_body or transport.is_closing() or not transport.can_write_eof():
            return False
        if len(self.lingering_connections) >= MAX_LINGERING:
            return False
        self.lingering_connections.add(self)
        self.cycle.disconnected |= not self.cycle.response_complete
        self.cycle.message_event.set()
        self._linger_timer = self.loop.call_later(LINGER_TIMEOUT, transport.abort)
        self._wait_for_client()
        transport.write_eof()
        self.flow.resume_reading()
        return True

    def _wait_for_client(self) -> None:
        """Begin to wait, behind the connections that wait already."""
        self.waiting_for_clients.pop(self, None)
        self.waiting_for_clients[self] = None

    def _give_way(self) -> None:
        """End the connection for another one."""
        del self.waiting_for_clients[self]
        if self.lingering or self.transport.get_write_buffer_size():  # a client that does not read
            self.transport.abort()
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse a header that is too long."""
        if self.lingering:
            self.transport.pause_reading()
            self.loop.call_later(LINGER_PAUSE, self.transport.resume_reading)
        if self.transport.is_closing():
            return
        self._unparsed += len(data)
        if self._header_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_header()
        super().data_received(data)
        if self._unparsed > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._refuse(431, "too_large", f"the request's header has more than {MAX_HEADER_BYTES:,} bytes; send less")

    def on_url(self, url: bytes) -> None:
        """Raise where the address is too long, which ends the connection."""
        super().on_url(url)
        if len(self.url) > MAX_ADDRESS_BYTES:
            self._fault = (414, "too_large", f"the address has more than {MAX_ADDRESS_BYTES:,} bytes; send less in it")
            raise ValueError(self._fault)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Raise where there are too many fields, which ends the connection."""
        if len(self.headers) >= MAX_HEADERS:
            self._fault = (400, "invalid", f"the request has more than {MAX_HEADERS} header fields; send fewer")
            raise ValueError(self._fault)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Raise where too many requests wait, which ends the connection."""
        self._stop_header_timer()
        self._unparsed = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            message = f"more than {MAX_PIPELINED} requests wait on this connection; read the answers first"
            self._fault = (400, "invalid", message)
            raise ValueError(self._fault)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body has arrived; raise where the pieces are tiny, which ends the connection."""
        self._unparsed = 0
        self._pieces += 1
        self._piece_bytes += len(body)
        if self._pieces > MAX_SMALL_PIECES and self._piece_bytes < LEAST_PIECE * self._pieces:
            message = f"the body arrives in pieces of less than {LEAST_PIECE} bytes; send larger ones"
            self._fault = (400, "invalid", message)
            raise ValueError(self._fault)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived: now its client waits for the server."""
        self._unparsed = self._pieces = self._piece_bytes = 0
        self.waiting_for_clients.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has arrived already."""
        super().on_response_complete()
        if not self.pipeline and not self.transport.is_closing():
            self._wait_for_client()

    def pause_writing(self) -> None:
        """The client reads more slowly than the server writes: it has some seconds."""
        super().pause_writing()
        self._stop_write_timer()
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        self._stop_write_timer()
        super().resume_writing()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: a request to upgrade is answered as any other, and would fill the log."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text says no more
        """Answer what is not HTTP."""
        self._refuse(*self._fault)

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
        started = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not started and not self.pipeline:
            if self.cycle is not None:
                self.cycle.disconnected = True  # what it still answers is not sent
            response = problem_response(ApiError(status, code, message, {"Connection": "close"}))  # type: ignore[arg-type]
            fields = b"".join(b"%b: %b\r\n" % field for field in response.raw_headers)
            self.transport.write(b"HTTP/1.1 %d \r\n%b\r\n%b" % (status, fields, bytes(response.body)))
        self.transport.close()


class _LingeringTransport:
    """A transport that lingers, and says that it is closing meanwhile."""

    def __init__(self, transport: asyncio.Transport, protocol: LimitedHttpProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self.write = transport.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close, now or once the client has sent its body."""
        if not self._protocol.linger(self._transport):
            self._transport.close()

    def is_closing(self) -> bool:
        """Whether nothing more is read or written."""
        return self._protocol.lingering or self._transport.is_closing()


def limited_protocol(max_connections: int) -> type[LimitedHttpProtocol]:
    """The protocol of a server with a number of connections."""
    members = {"max_connections": max_connections, "waiting_for_clients": {}, "lingering_connections": set()}
    return type("BoundedHttpProtocol", (LimitedHttpProtocol,), members)
