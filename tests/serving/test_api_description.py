"""The page /docs: complete on this machine, under a policy that allows nothing from another one."""

from __future__ import annotations

import re

import live
import pytest
from echo_model import make_engine

from medical_vqa.serving.middleware.access import hash_key


@pytest.mark.parametrize("keys", ["", f"anna:{hash_key('anna')}"])
def test_the_description_and_its_files_come_from_this_server_and_need_no_key(keys):
    settings = live.settings(api_keys=keys) if keys else live.settings()
    with live.serving(make_engine(), settings) as url, live.client_of(base_url=url) as client:
        page = client.get("/docs")
        addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(addresses) == 4 and not any(address.startswith(("http", "/")) for address in addresses)
        replies = [client.get(f"/{address}") for address in addresses]
        assert [reply.status_code for reply in (page, *replies)] == [200] * 5
        assert "//" not in page.headers["content-security-policy"]
        assert client.get("/openapi.json").json()["info"]["title"] == "Medical-VQA"
        assert client.get("/docs/other.js").status_code in (401, 404)


def test_a_server_without_a_description_serves_none():
    with live.serving(make_engine(), live.settings(docs=False)) as url:
        statuses = [live.request("GET", f"{url}/{path}").status_code for path in ("docs", "docs/start.js")]
    assert statuses == [404, 404]
