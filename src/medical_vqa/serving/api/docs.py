"""The API's description as a page: Swagger UI from an installed package, and nothing from another machine."""

from __future__ import annotations

from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from medical_vqa.serving.errors import ApiError

_FOLDER = Path(fastapi_offline.__file__).parent / "static"
_TYPES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon.png": "image/png",
}
# Every address is relative, so that the page also works behind a proxy that serves it under a path of its own.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Medical-VQA: the HTTP API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon.png">
</head>
<body>
<div id="description"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#description",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
  layout: "BaseLayout",
  validatorUrl: null,
});
"""

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def page() -> Response:
    """The description."""
    return Response(_PAGE, media_type="text/html; charset=utf-8")


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """A file of the page."""
    if name == "start.js":
        return Response(_START, media_type=_TYPES["swagger-ui-bundle.js"])
    if name not in _TYPES:
        raise ApiError(404, "not_found", "the description has no such file")
    return FileResponse(_FOLDER / name, media_type=_TYPES[name])
