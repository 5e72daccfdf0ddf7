"""The pages that the server has: the paths under which they are served, and what each may do."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "page"
"""What ``web/build.mjs`` writes."""
PAGE_PATHS = frozenset({"/page", "/page/page.js", "/page/page.css"})
"""Paths of the web page, which need no key: the page asks for one itself."""
DOCS_PATHS = frozenset(
    {"/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/favicon.png"}
)
"""Paths of the API's description, which need no key: whoever tries a route there enters one."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Content security policy: nothing from another machine, no inline script; pictures are shown from memory."""
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""The same for the API's description, whose script sets styles of elements."""
