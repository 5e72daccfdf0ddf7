"""llama.cpp's server as a process: a real engine, with a tiny random LLaVA in GGUF.

The layout is that of llama.cpp's LLaVA-1.5: a Llama with a SentencePiece vocabulary of bytes, and CLIP with a projector
of two layers in a file of its own (``mmproj``). `python llama_engine.py FOLDER PORT` runs it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np

WIDTH, HIDDEN, LAYERS, HEADS, CONTEXT = 64, 128, 2, 4, 2048
VISION_WIDTH, VISION_HIDDEN, VISION_LAYERS, SIDE, PATCH = 32, 64, 2, 28, 14


class LlamaEngine:
    """The server with or without eyes, as a process that can be killed."""

    def __init__(self, folder: Path, *, sees: bool = True) -> None:
        self.folder = folder
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(7)
        write_language(folder / "tiny.gguf", rng)
        if sees:
            write_vision(folder / "mmproj.gguf", rng)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start it, on the port that it had before, and wait until it listens."""
        command = [sys.executable, __file__, str(self.folder), str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        address = next(line for line in self.process.stdout if line.startswith("http"))
        self.port = int(address.rpartition(":")[2])

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.process = None


def write_language(path: Path, rng: np.random.Generator) -> None:
    """A Llama whose tokens are bytes and printable characters."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(33, 127))]
    pieces = len(tokens) - 259
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(0)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(pieces)])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * pieces)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    shapes = {"token_embd": (len(tokens), WIDTH), "output": (len(tokens), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        shapes |= {f"{block}{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"{block}attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {f"{block}ffn_{name}": (HIDDEN, WIDTH) for name in ("gate", "up")}
        shapes[f"{block}ffn_down"] = (WIDTH, HIDDEN)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", weights(rng, *shape))
    _write(writer)


def write_vision(path: Path, rng: np.random.Generator) -> None:
    """CLIP and the projector of LLaVA-1.5."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("tiny")
    writer.add_file_type(0)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_image_size(SIDE)
    writer.add_vision_patch_size(PATCH)
    writer.add_vision_embedding_length(VISION_WIDTH)
    writer.add_vision_feed_forward_length(VISION_HIDDEN)
    writer.add_vision_block_count(VISION_LAYERS)
    writer.add_vision_head_count(2)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_projection_dim(WIDTH)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    writer.add_vision_use_gelu(True)
    writer.add_tensor("v.class_embd", weights(rng, VISION_WIDTH, 1)[:, 0])
    writer.add_tensor("v.patch_embd.weight", weights(rng, VISION_WIDTH, 3, PATCH, PATCH))
    writer.add_tensor("v.position_embd.weight", weights(rng, (SIDE // PATCH) ** 2 + 1, VISION_WIDTH))
    shapes = {"v.pre_ln": (VISION_WIDTH,), "mm.0": (WIDTH, VISION_WIDTH), "mm.2": (WIDTH, WIDTH)}
    for layer in range(VISION_LAYERS):
        block = f"v.blk.{layer}."
        shapes |= {f"{block}{name}": (VISION_WIDTH,) for name in ("ln1", "ln2")}
        shapes |= {f"{block}attn_{name}": (VISION_WIDTH, VISION_WIDTH) for name in ("q", "k", "v", "out")}
        shapes |= {f"{block}ffn_up": (VISION_HIDDEN, VISION_WIDTH), f"{block}ffn_down": (VISION_WIDTH, VISION_HIDDEN)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", weights(rng, *shape))
        writer.add_tensor(f"{name}.bias", np.zeros(shape[0], np.float32))
    _write(writer)


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Ones for a norm, random numbers for everything else."""
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return (0.3 * rng.standard_normal(shape)).astype(np.float32)


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(folder: Path, port: int) -> None:
    """Run llama.cpp's server until the process is killed."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(folder / "tiny.gguf")
    if (folder / "mmproj.gguf").is_file():
        params.mmproj.path = str(folder / "mmproj.gguf")
    params.model_alias = {"tiny"}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_ctx, params.n_parallel, params.warmup = CONTEXT, 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
