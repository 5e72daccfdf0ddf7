"""Servers behind the nginx of `deploy/nginx.conf`: one address, and no request lost with a server that ends."""

from __future__ import annotations

import base64
import contextlib

import live
import proxy
import pytest
from echo_model import make_engine
from live import png

needs_nginx = pytest.mark.skipif(proxy.NGINX is None, reason="needs nginx: apt-get install nginx-light")


@needs_nginx
def test_servers_behind_nginx_are_one_and_a_server_that_ends_is_not_noticed(tmp_path):
    on_store = live.settings(store=str(tmp_path / "store"), trusted_proxies="127.0.0.1")
    folder = tmp_path / "nginx"
    folder.mkdir()
    with contextlib.ExitStack() as first_server, live.serving(make_engine(), on_store) as second:
        first = first_server.enter_context(live.serving(make_engine(), on_store))
        with proxy.nginx([first, second], folder) as url, live.client_of(base_url=url) as client:
            files = [{"image_file": png(number)} for number in range(6)]
            ids = [client.post("/upload_image", files=file).json()["image_id"] for file in files]
            answers = [client.post("/ask_question", json={"image_id": id_, "question": "q"}) for id_ in ids]
            assert [reply.json()["answer"] for reply in answers] == [f"{number} q" for number in range(6)]
            served = [
                live.request("GET", f"{server}/metrics").text.count('handler="/ask_question"')
                for server in (first, second)
            ]
            assert all(served)  # both had a part
            first_server.close()
            answers = [client.post("/ask_question", json={"image_id": id_, "question": "again"}) for id_ in ids]
            assert [reply.json()["answer"] for reply in answers] == [f"{number} again" for number in range(6)]
            assert client.get("/metrics").status_code == 404


@needs_nginx
def test_a_streamed_answer_passes_nginx(tmp_path, scan):
    with live.serving(make_engine()) as server, proxy.nginx([server], tmp_path) as url:
        image = "data:image/jpeg;base64," + base64.b64encode(scan).decode()
        content = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": image}}]
        body = {"model": "medical-vqa", "messages": [{"role": "user", "content": content}], "stream": True}
        reply = live.request("POST", f"{url}/v1/chat/completions", json=body)
    assert reply.status_code == 200 and reply.text.rstrip().endswith("data: [DONE]")
