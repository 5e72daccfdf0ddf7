"""Images from elsewhere, where a setting allows it: public addresses only, no redirects, bounded in bytes and time.

The name is resolved once and the connection goes to the very address that was looked at, so that a name which answers
differently the second time gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx2

from medical_vqa.serving.errors import RefusedError

_PORTS = {"http": 80, "https": 443}


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet: not this machine, its network, or a cloud's metadata."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or _translated(ip)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _translated(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside a NAT64 one (RFC 6052)."""
    inside = ip in ipaddress.ip_network("64:ff9b::/96")
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if inside else None


async def fetch_image(url: str, *, limit: int, seconds: float, allowed: Callable[[str], bool] = is_public) -> bytes:
    """The bytes at an http(s) URL. Raises `RefusedError`: 400 where it cannot be had, 413 where it is too large."""
    try:
        async with asyncio.timeout(seconds):
            return await _fetch(url, limit, allowed)
    except (TimeoutError, OSError, ValueError, httpx2.HTTPError, httpx2.InvalidURL):
        raise RefusedError(400, "not_an_image", "the image cannot be fetched; send it as a data URL") from None


async def _fetch(url: str, limit: int, allowed: Callable[[str], bool]) -> bytes:
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.username or parts.password:
        raise RefusedError(400, "not_an_image", "expected an http(s) URL without a user")
    port = parts.port or _PORTS[parts.scheme]
    found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(map(allowed, addresses)):
        raise RefusedError(400, "not_an_image", "this address is not on the open internet; send a data URL")
    there = httpx2.URL(url).copy_with(host=addresses[0], port=port)
    host = parts.netloc.rpartition("@")[2]
    async with httpx2.AsyncClient(follow_redirects=False, trust_env=False) as client:
        request = client.build_request(
            "GET", there, headers={"Host": host, "Accept": "image/*"}, extensions={"sni_hostname": parts.hostname}
        )
        response = await client.send(request, stream=True)
        try:
            return await _read(response, limit)
        finally:
            await response.aclose()


async def _read(response: httpx2.Response, limit: int) -> bytes:
    if response.status_code != 200:
        raise RefusedError(400, "not_an_image", "the image's server does not give it; send it as a data URL")
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > limit:
            raise RefusedError(413, "too_large", f"the image has more than {limit:,} bytes; make it smaller")
    return bytes(content)
