"""The Prometheus metrics of one server, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from medical_vqa.runtime.environment import package_version

_MODEL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
_HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Everything that is counted; each server has one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time and open files of the server, on Linux
        Info("medical_vqa_build", "The server's version", registry=self.registry).info({"version": package_version()})
        self.http_requests = self._counter("http_requests", "Requests answered", "handler", "method", "status")
        self.http_seconds = self._histogram(
            "http_request_duration_seconds", "From a request to its response", _HTTP_BUCKETS, "handler", "method"
        )
        self.http_in_progress = Gauge("http_requests_in_progress", "Requests being answered", registry=self.registry)
        self.queue_size = Gauge("medical_vqa_queue", "Questions and uploads in the queue", registry=self.registry)
        self.model_queue = Gauge(
            "medical_vqa_model_queue", "Questions and uploads in a model's queue", ["model"], registry=self.registry
        )
        self.model_memory = Gauge(
            "medical_vqa_model_memory_bytes", "Memory of a model when it was loaded", ["model"], registry=self.registry
        )
        self.queue_seconds = self._histogram("medical_vqa_wait_seconds", "Time in the queue", _MODEL_BUCKETS)
        self.batch_size = self._histogram(
            "medical_vqa_batch_size", "Questions or images in one model call", _BATCH_BUCKETS, "work"
        )
        self.model_seconds = self._histogram(
            "medical_vqa_model_seconds", "Duration of one model call", _MODEL_BUCKETS, "work"
        )
        self.answer_cache = self._counter("medical_vqa_answer_cache", "Answer cache lookups", "result")
        self.image_cache = self._counter("medical_vqa_image_cache", "Image cache lookups", "result")
        self.refused = self._counter("medical_vqa_refused", "Requests answered with an error", "code")
        self.dropped = self._counter("medical_vqa_dropped", "Work dropped before it was computed", "reason")
        self.damaged = self._counter("medical_vqa_damaged_blobs", "Stored images whose checksum did not fit")
        self.abstained = self._counter("medical_vqa_abstained", "Answers from which the model abstained")

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(name, description, labels, registry=self.registry)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, description, labels, buckets=buckets, registry=self.registry)
