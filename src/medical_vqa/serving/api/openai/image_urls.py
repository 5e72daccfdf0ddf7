"""Images in a conversation: data URLs, and http(s) URLs where the server fetches them."""

from __future__ import annotations

import asyncio
import base64
import string

from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.remote_images import fetch_image
from medical_vqa.serving.service.service import Service

_LONGEST_SCHEME = 16  # characters that are searched for the end of an address's scheme
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_PERCENT_ENCODED = {code.encode(): bytes([int(code[1:], 16)]) for code in ("%2B", "%2b", "%2F", "%2f", "%3D", "%3d")}
_PERCENT_ENCODED |= {b"%0A": b"", b"%0a": b"", b"%0D": b"", b"%0d": b"", b"%20": b""}
_BASE64_PIECE = 1024 * 1024  # characters


async def read_image_url(url: str, service: Service, field: str = "messages") -> bytes:
    """The bytes of a data URL or, where the settings allow it, of an http(s) URL.

    Args:
        url: The image's.
        service: Whose settings count.
        field: Name of the field with the conversation, for errors.

    Raises:
        ApiError: The image cannot be read.
    """
    if not url.isascii():  # before any copy: such a text may take four times its bytes
        raise ApiError(400, "not_an_image", "expected the image's address in ASCII; encode it again", param=field)
    scheme = url[:_LONGEST_SCHEME].partition(":")[0].lower()
    if scheme == "data":
        header, comma, content = url.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise ApiError(400, "not_an_image", "expected an image as data:image/...;base64,...", param=field)
        try:
            return await asyncio.to_thread(decode_base64, content)
        except ValueError:
            raise ApiError(400, "not_an_image", "the image's base64 is damaged; encode it again", param=field) from None
    if scheme not in ("http", "https"):
        message = "expected the image as data:image/...;base64,..., got neither that nor an http(s) URL"
        raise ApiError(400, "not_an_image", message, param=field)
    if not service.settings.remote_images:
        raise ApiError(400, "not_an_image", "this server fetches no remote images; send a data URL", param=field)
    return await fetch_image(url, max_bytes=service.settings.max_upload_bytes, timeout=service.settings.deadline)


def decode_base64(text: str) -> bytes:
    """The bytes of base64, in either alphabet, with or without line breaks and padding; raises `ValueError`.

    Decoded in pieces, between which other threads run, and without an object for each of millions of lines.
    """
    decoded, code_begun, rest = [], b"", b""
    for start in range(0, len(text), _BASE64_PIECE):
        data = code_begun + text[start : start + _BASE64_PIECE].encode("ascii")
        last_percent = data.rfind(b"%", -2)  # of a code of three characters, whose end is in the next piece
        end = len(data) if last_percent < 0 or start + _BASE64_PIECE >= len(text) else last_percent
        data, code_begun = data[:end], data[end:]
        if b"%" in data:
            for code, character in _PERCENT_ENCODED.items():
                data = data.replace(code, character)
        piece = rest + data.translate(_URL_SAFE, string.whitespace.encode())
        complete = len(piece) - len(piece) % 4
        decoded.append(base64.b64decode(piece[:complete], validate=True))
        rest = piece[complete:]
    decoded.append(base64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True))
    return b"".join(decoded)
