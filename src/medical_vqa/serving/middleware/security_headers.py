"""Security headers: nothing may frame a response, guess its type, cache it or learn where a request came from.

No Strict-Transport-Security: that header belongs to whatever terminates TLS, which this server does not.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_API_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
_CDN = "https://cdn.jsdelivr.net"  # from which FastAPI's page /docs loads its script and style sheet
_DOCS_POLICY = (
    f"{_API_POLICY}; script-src 'self' 'unsafe-inline' {_CDN}; style-src 'self' 'unsafe-inline' {_CDN}; "
    "img-src 'self' data: https://fastapi.tiangolo.com; connect-src 'self'"
)


class SecurityHeadersMiddleware:
    """Adds the same headers to every response."""

    def __init__(self, app: ASGIApp, *, docs: bool) -> None:
        """`docs`: whether the server has the page /docs, whose scripts the content security policy must allow."""
        self._app = app
        headers = {**_HEADERS, "Content-Security-Policy": _DOCS_POLICY if docs else _API_POLICY}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._names = frozenset(name for name, _ in self._headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [header for header in message.get("headers", ()) if header[0].lower() not in self._names]
                message["headers"] = [*others, *self._headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)
