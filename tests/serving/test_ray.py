"""The short file for Ray Serve, run on one machine where Ray is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port

ROOT = Path(__file__).parents[2]
SCRIPT = """
import httpx2, io, ray
from PIL import Image
from ray import serve
from deploy.ray_serve import app

ray.init(num_cpus=2, include_dashboard=False)
serve.start(http_options={"host": "127.0.0.1", "port": %d})
serve.run(app)
out = io.BytesIO()
Image.new("L", (32, 32), 90).save(out, "PNG")
url = "http://127.0.0.1:%d"
id_ = httpx2.post(url + "/upload_image", files={"image_file": out.getvalue()}).json()["image_id"]
reply = httpx2.post(url + "/ask_question", json={"image_id": id_, "question": "What modality is this?"})
print("ANSWER", reply.status_code, reply.json()["answer"])
serve.shutdown()
"""


def test_the_same_app_answers_on_ray(run, tmp_path):
    pytest.importorskip("ray", reason="the extra `ray` is not in `dev`: it is large and slow to start")
    port = free_port()
    named = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "MEDICAL_VQA_MODEL": str(run), "MEDICAL_VQA_STORE": str(tmp_path)}
    environ = {**os.environ, **named, "MEDICAL_VQA_DECODER_PROCESSES": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    environ.pop("MEDICAL_VQA_HOME", None)
    done = subprocess.run(  # noqa: PLW1510 - the output says more than the code
        [sys.executable, "-c", SCRIPT % (port, port)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
    )
    assert "ANSWER 200" in done.stdout, done.stdout[-2000:] + done.stderr[-4000:]
