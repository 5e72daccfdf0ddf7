"""Images by http(s) URL, where a setting allows it: public addresses only, no redirects, bounded in bytes and time.

The host name is resolved once and the connection goes to the very address that was checked, so that a name which
resolves differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx2

from medical_vqa.serving.errors import ApiError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291; nothing else is assigned on the public internet
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (  # of the registries of special-purpose addresses (RFC 6890), where Python 3.11.7 says "global"
            "192.0.0.0/24",
            "192.88.99.0/24",
            "2001::/23",
            "2001:db8::/32",
            "3fff::/20",
        ),
    )
)


def is_public(address: str) -> bool:
    """Whether an address is on the public internet: not this machine, its network, or a cloud's metadata service."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        nat64 = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        embedded = ip.ipv4_mapped or ip.sixtofour or nat64
        if embedded is not None:
            return is_public(str(embedded))
        if ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


async def fetch_image(
    url: str, *, max_bytes: int, timeout: float, is_allowed: Callable[[str], bool] = is_public
) -> bytes:
    """The bytes at an http(s) URL.

    Args:
        url: Without user and password.
        max_bytes: Of the response.
        timeout: Seconds for all of it.
        is_allowed: Whether an address may be connected to.

    Raises:
        ApiError: 400 where it cannot be fetched, 413 where it is too large.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _fetch(url, max_bytes, is_allowed)
    except (TimeoutError, OSError, ValueError, httpx2.HTTPError, httpx2.InvalidURL):
        raise ApiError(400, "not_an_image", "the image cannot be fetched; send it as a data URL") from None


async def _fetch(url: str, max_bytes: int, is_allowed: Callable[[str], bool]) -> bytes:
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username or parts.password:
        raise ApiError(400, "not_an_image", "expected an http(s) URL without a user")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    resolved = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in resolved]
    if not addresses or not all(map(is_allowed, addresses)):
        raise ApiError(400, "not_an_image", "this address is not on the public internet; send a data URL")
    address_url = httpx2.URL(url).copy_with(host=addresses[0], port=port)
    headers = {"Host": parts.netloc.rpartition("@")[2], "Accept": "image/*"}
    async with httpx2.AsyncClient(follow_redirects=False, trust_env=False) as client:
        request = client.build_request("GET", address_url, headers=headers, extensions={"sni_hostname": parts.hostname})
        response = await client.send(request, stream=True)
        try:
            return await _read(response, max_bytes)
        finally:
            await response.aclose()


async def _read(response: httpx2.Response, max_bytes: int) -> bytes:
    if response.status_code != 200:
        message = f"the image's server answers with status {response.status_code}; send the image as a data URL"
        raise ApiError(400, "not_an_image", message)
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > max_bytes:
            raise ApiError(413, "too_large", f"the image has more than {max_bytes:,} bytes; make it smaller")
    return bytes(content)
