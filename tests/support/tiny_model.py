"""A compact model small enough to train in seconds, and a watcher of its training."""

from __future__ import annotations

from typing import Any

TINY_MODEL = {
    "family": "compact",
    "picture": {"side": 32},
    "channels": [8, 16],
    "width": 16,
    "heads": 2,
    "layers": 1,
    "dropout": 0.0,
}


class Silent:
    """A watcher that records what it receives."""

    def __init__(self) -> None:
        self.scores: list[dict[str, float]] = []
        self.began: list[int] = []

    def begin(self, *, total_steps: int, done_steps: int, device: str) -> None:
        self.began.append(done_steps)

    def step(self, *, done: int, epoch: int, loss: float, questions_per_second: float) -> None:
        pass

    def score(self, *, epoch: int, train_loss: float, scores: Any, best: bool) -> None:
        self.scores.append(dict(scores))
