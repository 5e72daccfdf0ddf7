"""Write a fine-tuned model for inference engines: merged into its base, as an adapter for vLLM, or as GGUF."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from medical_vqa.errors import MissingDependencyError, ModelError
from medical_vqa.models.hf.families import LANGUAGE_FILE

CONVERTER = "convert_hf_to_gguf.py"
"""llama.cpp's converter; no release of it is on PyPI."""
_ADAPTER = "adapter_config.json"
_ADAPTER_FILES = (_ADAPTER, "adapter_model.safetensors")
_VISION = re.compile(r"\.(visual|vision_tower|vision_model)\.")
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the values of vLLM's --max-lora-rank


def write_vllm(bundle: Path, name: str, out: Path) -> str:
    """Write the adapter of a bundle with the command that serves it; returns the command.

    Args:
        bundle: A bundle with an adapter in PEFT's format.
        name: Name under which vLLM serves it.
        out: A new folder.

    Raises:
        ModelError: The bundle has no adapter, one that vLLM does not read because it is of another kind or changes more
            than the language model, or a base that is a folder of this machine.
    """
    if not (bundle / _ADAPTER).is_file():
        raise ModelError(f"{bundle} has no adapter, so vLLM cannot load it on top of a base; see --to merged")
    config: dict[str, Any] = json.loads((bundle / _ADAPTER).read_text(encoding="utf-8"))
    if config.get("use_dora"):
        raise ModelError(f"{bundle} is a DoRA adapter, which vLLM does not load; export it with --to merged")
    if problem := _beyond_language_model(bundle, config):
        raise ModelError(f"{bundle} {problem}, which vLLM does not load with an adapter; export it with --to merged")
    base, revision = str(config["base_model_name_or_path"]), config.get("revision")
    if not revision or Path(base).is_dir():
        raise ModelError(
            f"the base of {bundle} is the folder {base}, which the engine's machine does not have; train on the hub id "
            "of the base, or export with --to merged"
        )
    fitting = [rank for rank in _RANKS if rank >= int(config["r"])]
    if not fitting:
        raise ModelError(f"{bundle} has rank {config['r']}, and vLLM serves at most {_RANKS[-1]}; use --to merged")
    command = (
        f"vllm serve {base} --revision {revision} --enable-lora --max-lora-rank {fitting[0]} "
        f"--lora-modules {name}={out.name}"
    )
    out.mkdir(parents=True)
    for file in _ADAPTER_FILES:
        shutil.copyfile(bundle / file, out / file)
    text = (
        f"# {name} for vLLM\n\nResearch software: not a medical device and not for diagnosis.\n\n"
        f"In the folder that contains this one:\n\n```sh\n{command}\nmedical-vqa app vllm:{name}\n```\n"
    )
    (out / "README.md").write_text(text, encoding="utf-8")
    return command


def _beyond_language_model(bundle: Path, config: dict[str, Any]) -> str | None:
    """What an adapter changes outside low-rank updates of the language model, in words; None for nothing."""
    if (bundle / LANGUAGE_FILE).is_file():
        return "holds a whole trained language model"
    if modules := config.get("modules_to_save"):
        return f"holds whole trained modules ({', '.join(modules[:3])}{', ...' if len(modules) > 3 else ''})"
    from safetensors import safe_open  # noqa: PLC0415 - an extra, which bundles with adapters need anyway

    with safe_open(bundle / "adapter_model.safetensors", framework="np") as weights:
        if any(_VISION.search(name) for name in weights.keys()):  # noqa: SIM118 - it cannot be iterated
            return "adapts the vision encoder"
    return None


def write_gguf(merged: Path, out: Path) -> list[Path]:
    """Convert a merged model with llama.cpp's converter: the language model, and the projector that reads pictures.

    Args:
        merged: Folder in the hub's layout.
        out: A new folder.

    Raises:
        MissingDependencyError: The converter is not on the path.
        ModelError: It does not convert this model.
    """
    program = shutil.which(CONVERTER)
    if program is None:
        raise MissingDependencyError(
            f"GGUF needs llama.cpp's {CONVERTER} on the PATH, which is not there; run: brew install llama.cpp, or "
            "git clone https://github.com/ggml-org/llama.cpp and pip install -r "
            "llama.cpp/requirements/requirements-convert_hf_to_gguf.txt"
        )
    out.mkdir(parents=True)
    written = []
    for file, options in (("model.gguf", []), ("mmproj.gguf", ["--mmproj"])):
        command = [sys.executable, program, str(merged), "--outfile", str(out / file), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(out)
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(
                f"{CONVERTER} does not convert {merged.name} ({reason}); serve it with --to merged instead"
            )
        written.append(out / file)
    return written
