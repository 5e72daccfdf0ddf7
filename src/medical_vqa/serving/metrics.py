"""What is counted: Prometheus metrics of one server, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Meters:
    """The metrics of the engine; those of requests are added by the instrumentator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.waiting = Gauge("medical_vqa_queue", "Questions and uploads waiting for the model", registry=self.registry)
        self.batch = Histogram(
            "medical_vqa_batch_size", "Questions or pictures in one call of the model", ["work"],
            buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry,
        )  # fmt: skip
        self.model_seconds = Histogram(
            "medical_vqa_model_seconds", "One call of the model", ["work"], buckets=_SECONDS, registry=self.registry
        )
        self.wait_seconds = Histogram(
            "medical_vqa_wait_seconds", "Waiting for the model", buckets=_SECONDS, registry=self.registry
        )
        self.cache = Counter("medical_vqa_answer_cache", "Answers looked up", ["result"], registry=self.registry)
        self.hot = Counter("medical_vqa_image_cache", "Uploads looked up in memory", ["result"], registry=self.registry)
        self.refused = Counter("medical_vqa_refused", "Requests refused", ["code"], registry=self.registry)
        self.dropped = Counter(
            "medical_vqa_dropped", "Work dropped before it was computed", ["reason"], registry=self.registry
        )
        self.abstained = Counter(
            "medical_vqa_abstained", "Answers that the model abstained from", registry=self.registry
        )
