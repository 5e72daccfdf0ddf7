"""Inference engines that a deployment runs behind the server: image, command, health check, cache, queue metric.

Images are those of the projects, pinned; ports, health paths and metrics are those of their documentation (vLLM 0.27,
SGLang 0.5, Ollama 0.35).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medical_vqa.errors import ConfigError
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.text import did_you_mean


@dataclass(frozen=True, slots=True)
class Engine:
    """One inference engine."""

    name: str
    """Name on the command line."""
    image: str
    """Container image, with its version."""
    port: int
    """Port that it listens on."""
    command: tuple[str, ...]
    """Program and arguments; ``MODEL`` stands for the model's id. Empty: the image's own."""
    health: str
    """Path that answers 200 once it serves."""
    cache: str
    """Folder of downloaded weights in the container."""
    cache_variable: str
    """Environment variable that names this folder."""
    queue_metric: str | None = None
    """Prometheus metric of the requests that wait; None where it has none, and replicas do not follow the load."""
    pulls: bool = False
    """Whether the model must be pulled by a command of its own after the start."""

    def arguments(self, model_id: str) -> list[str]:
        """The command for a model."""
        return [part.replace("MODEL", model_id) for part in self.command]


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            "vllm",
            "vllm/vllm-openai:v0.27.1",
            8000,
            ("vllm", "serve", "MODEL", "--port", "8000"),
            "/health",
            "/cache",
            "HF_HOME",
            "vllm:num_requests_waiting",
        ),
        Engine(
            "sglang",
            "lmsysorg/sglang:v0.5.15",
            30000,
            ("python3", "-m", "sglang.launch_server", "--model-path", "MODEL", "--host", "0.0.0.0", "--port", "30000",
             "--enable-metrics"),
            "/health",
            "/cache",
            "HF_HOME",
            "sglang:num_queue_reqs",
        ),
        Engine("ollama", "ollama/ollama:0.35.1", 11434, (), "/api/version", "/cache", "OLLAMA_MODELS", pulls=True),
    )
}  # fmt: skip


def find_engine(name: str) -> Engine:
    """The engine with this name; raises `ConfigError` for an unknown one."""
    if name not in ENGINES:
        raise ConfigError(f"unknown engine {name!r}; {did_you_mean(name, ENGINES)}")
    return ENGINES[name]


def engine_card(model_id: str) -> BundleCard:
    """The card of a model that an engine serves; raises `ConfigError` for an id that no engine takes."""
    if not model_id or any(letter.isspace() or letter in "\"'$`\\{}" for letter in model_id):
        raise ConfigError(f"--model-id {model_id!r}: expected the id of a model, such as google/medgemma-4b-it")
    return BundleCard(family="openai", name=model_id)
