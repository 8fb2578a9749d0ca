"""What the service counts, for Prometheus; nothing of a user is in it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5)
SIZES = (1, 2, 4, 8, 16, 32, 64)
ROWS = (1, 10, 50, 100, 200, 500, 1000, 5000)


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def name(short: str) -> str:
            return f"multidomain_{short}"

        own = self.registry
        self.requests = Counter(name("requests_total"), "Answers", ["route", "status"], registry=own)
        self.seconds = Histogram(name("request_seconds"), "Until the answer", ["route"], buckets=SECONDS, registry=own)
        self.items = Histogram(name("request_items"), "Candidates or rows", ["route"], buckets=ROWS, registry=own)
        self.held = Gauge(name("requests_held"), "Requests that are being answered or wait", registry=own)
        self.refused = Counter(name("refused_total"), "Requests without an answer", ["reason"], registry=own)
        self.degraded = Counter(name("degraded_total"), "Answers without online features", ["reason"], registry=own)
        self.missing = Counter(name("missing_total"), "Keys a view knows nothing of", ["view"], registry=own)
        self.store = Histogram(name("store_read_seconds"), "Reading of features", buckets=SECONDS, registry=own)
        self.joined = Histogram(name("forward_requests"), "Requests in one forward", buckets=SIZES, registry=own)
        self.rows = Histogram(name("forward_rows"), "Rows in one forward", buckets=ROWS, registry=own)
        self.forward = Histogram(name("forward_seconds"), "Encoder and model", buckets=SECONDS, registry=own)
        self.model = Gauge(name("model_info"), "1: of the version that scores", ["name", "version"], registry=own)
        self.swaps = Counter(name("model_swaps_total"), "Times the alias was followed", registry=own)
        self.failures = Counter(name("model_load_failures_total"), "Looks at the registry that failed", registry=own)
        self.loaded = Gauge(name("view_loaded_until_seconds"), "Up to when, since 1970", ["view"], registry=own)

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)
