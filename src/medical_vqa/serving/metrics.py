"""The Prometheus metrics of one server, in a registry of their own; those of several processes are added up."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from medical_vqa.runtime.environment import package_version
from medical_vqa.serving.workers import METRICS_FOLDER

_MODEL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
_HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Everything that is counted; each server has one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.of_several_processes = METRICS_FOLDER in os.environ
        """Whether this process counts together with others."""
        ProcessCollector(registry=self.registry)  # memory, processor time and open files of the server, on Linux
        Info("medical_vqa_build", "The server's version", registry=self.registry).info({"version": package_version()})
        self.http_requests = self._counter("http_requests", "Requests answered", "handler", "method", "status")
        self.http_seconds = self._histogram(
            "http_request_duration_seconds", "From a request to its response", _HTTP_BUCKETS, "handler", "method"
        )
        self.http_in_progress = self._gauge("http_requests_in_progress", "Requests being answered")
        self.queue_size = self._gauge("medical_vqa_queue", "Questions and uploads in the queue")
        self.model_queue = self._gauge("medical_vqa_model_queue", "Questions and uploads in a model's queue", "model")
        self.model_memory = self._gauge(
            "medical_vqa_model_memory_bytes", "Memory of a model when it was loaded", "model"
        )
        self.queue_seconds = self._histogram("medical_vqa_wait_seconds", "Time in the queue", _MODEL_BUCKETS)
        self.batch_size = self._histogram(
            "medical_vqa_batch_size", "Questions or images in one model call", _BATCH_BUCKETS, "work"
        )
        self.model_seconds = self._histogram(
            "medical_vqa_model_seconds", "Duration of one model call", _MODEL_BUCKETS, "work"
        )
        self.answer_cache = self._counter("medical_vqa_answer_cache", "Answer cache lookups", "result")
        self.answer_cache_hits, self.answer_cache_misses = map(self.answer_cache.labels, ("hit", "miss"))
        self.image_cache = self._counter("medical_vqa_image_cache", "Image cache lookups", "result")
        self.image_cache_hits, self.image_cache_misses = map(self.image_cache.labels, ("hit", "miss"))
        self.refused = self._counter("medical_vqa_refused", "Requests answered with an error", "code")
        self.dropped = self._counter("medical_vqa_dropped", "Work dropped before it was computed", "reason")
        self.damaged = self._counter("medical_vqa_damaged_blobs", "Stored images whose checksum did not fit")
        self.abstained = self._counter("medical_vqa_abstained", "Answers from which the model abstained")

    def text(self) -> bytes:
        """What GET /metrics answers; of several processes the sum, without those of the process itself."""
        if not self.of_several_processes:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _gauge(self, name: str, description: str, *labels: str) -> Gauge:
        return Gauge(name, description, labels, registry=self.registry, multiprocess_mode="livesum")

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(name, description, labels, registry=self.registry)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, description, labels, buckets=buckets, registry=self.registry)
