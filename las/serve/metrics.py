"""What ``/metrics`` tells, in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "las_requests",
            "Requests by endpoint and status",
            ["endpoint", "status"],
            registry=registry,
        )
        self.audio = Counter("las_audio_seconds", "Seconds of audio transcribed", registry=registry)
        self.queue = Gauge(
            "las_queue_length",
            "Requests with a file that are accepted and not answered yet",
            registry=registry,
        )
        self.chunks = Histogram(
            "las_batch_chunks", "Chunks of audio decoded at once", buckets=_SIZES, registry=registry
        )
        self.files = Histogram(
            "las_batch_files", "Files in a batch of chunks", buckets=_SIZES, registry=registry
        )
        self.latency = Histogram(
            "las_request_seconds",
            "Seconds from the first byte of a request with a file to its answer",
            buckets=_SECONDS,
            registry=registry,
        )

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
