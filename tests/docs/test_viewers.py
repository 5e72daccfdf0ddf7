"""The extension for OHIF in the documentation, with stand-ins for the services of OHIF that it uses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "viewers.md"
HARNESS = """
const opened = [];
globalThis.window = { open: (...words) => opened.push(words) };
const { default: extension } = await import(process.argv[2]);
const sets = { b: { StudyInstanceUID: "1.2.3", SeriesInstanceUID: "1.2.3.4" } };
const services = {
  viewportGridService: {
    getState: () => ({
      activeViewportId: "second",
      viewports: new Map([["first", { displaySetInstanceUIDs: ["a"] }], ["second", { displaySetInstanceUIDs: ["b"] }]]),
    }),
  },
  displaySetService: { getDisplaySetByUID: (identifier) => sets[identifier] },
};
const { definitions } = extension.getCommandsModule({ servicesManager: { services } });
definitions[process.argv[3]].commandFn();
console.log(JSON.stringify({ id: extension.id, opened }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_extension_for_ohif_opens_the_link_to_the_series_on_the_screen(tmp_path: Path) -> None:
    blocks = re.findall(r"^```js\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (extension,) = [block for block in blocks if "getCommandsModule" in block]
    (button,) = [block for block in blocks if "uiType" in block]
    (command,) = re.findall(r'commandName: "(\w+)"', button)
    (tmp_path / "extension.mjs").write_text(extension, encoding="utf-8")
    (tmp_path / "run.mjs").write_text(HARNESS, encoding="utf-8")
    run = subprocess.run(
        ["node", tmp_path / "run.mjs", tmp_path / "extension.mjs", command], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    ((address, target, features),) = result["opened"]
    assert (result["id"], target, features) == ("medical-vqa", "_blank", "noopener")
    parts = urlsplit(address)
    assert (parts.hostname, parts.path) == ("vqa.example.org", "/")
    assert parse_qs(parts.query) == {"study": ["1.2.3"], "series": ["1.2.3.4"]}
