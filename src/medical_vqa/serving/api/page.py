"""The routes of the web page: files that `web/` builds."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import FileResponse

from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.page_files import FOLDER

_TYPES = {"page.js": "text/javascript; charset=utf-8", "page.css": "text/css; charset=utf-8"}

router = APIRouter(include_in_schema=False)


@router.get("/page")
async def index() -> FileResponse:
    """The page."""
    return FileResponse(FOLDER / "index.html", media_type="text/html; charset=utf-8")


@router.get("/page/{name}")
async def asset(name: str) -> FileResponse:
    """A file of the page."""
    if name not in _TYPES:
        raise ApiError(404, "not_found", "the page has no such file")
    return FileResponse(FOLDER / name, media_type=_TYPES[name])
