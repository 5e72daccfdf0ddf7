"""Tries the package with the lowest versions that pyproject.toml allows: base install and server, without torch.

uv resolves every direct dependency to its lower bound in a fresh environment; there the package answers a question
(tools/smoke.py), prepares and scores the shipped sample, and serves.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120
SCORE = """
import json, pathlib, medical_vqa as mv
data = mv.prepare("slake-mini", progress=False)
rows = [json.loads(line) for line in (data.folder / "validation.jsonl").open(encoding="utf-8")]
table = "id,answer\\n" + "".join(f"{row['id']},yes\\n" for row in rows)
pathlib.Path("answers.csv").write_text(table, encoding="utf-8")
print(mv.score("answers.csv", columns="id=id,answer=answer", dataset=data, split="validation").em)
"""


def serve_once(program: Path, environment: dict[str, str]) -> None:
    """Start the server, wait until it is ready, and read its model card."""
    log = Path("server.log")
    with log.open("wb") as output:
        command = [program, "serve", "--port", "8765"]
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        limit = time.monotonic() + SECONDS
        while True:
            try:
                with urllib.request.urlopen("http://127.0.0.1:8765/model", timeout=5) as response:
                    print("served:", json.load(response)["name"])
                    return
            except OSError:
                if server.poll() is not None or time.monotonic() > limit:
                    sys.exit(f"the server did not answer:\n{log.read_text(encoding='utf-8')[-3000:]}")
                time.sleep(0.2)
    finally:
        server.terminate()
        server.wait(timeout=30)


def main() -> None:
    """Build the environment and run the three checks."""
    uv = shutil.which("uv") or sys.exit("uv is not installed; run: pip install uv")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        venv = Path(folder) / "venv"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
        environment = os.environ | {
            "VIRTUAL_ENV": str(venv),
            "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "MEDICAL_VQA_HOME": str(Path(folder) / "home"),
            "PYTHONPATH": "",
        }
        install = [uv, "pip", "install", "--quiet", "--resolution", "lowest-direct", f"{ROOT}[serve]"]
        subprocess.run(install, check=True, env=environment)
        subprocess.run([uv, "pip", "freeze"], check=True, env=environment)
        python = venv / "bin/python"
        subprocess.run([python, ROOT / "tools/smoke.py"], check=True, env=environment)
        subprocess.run([python, "-c", SCORE], check=True, env=environment)
        serve_once(venv / "bin/medical-vqa", environment)


if __name__ == "__main__":
    main()
