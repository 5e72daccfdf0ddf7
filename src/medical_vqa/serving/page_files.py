"""Where the built files of the web page are, under which paths they are served, and what the page may do."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "page"
"""What ``web/build.mjs`` writes."""
PAGE_PATHS = frozenset({"/page", "/page/page.js", "/page/page.css"})
"""Paths that need no key: the page asks for one itself."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Content security policy: nothing from another machine, no inline script; pictures are shown from memory."""
