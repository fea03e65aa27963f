"""What a service counts, for Prometheus. Times are in seconds, by a clock that is never set back."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from depthcli.version import __version__

_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
DONE, FAILED, BUSY, LEFT = "done", "failed", "busy", "left"  # what becomes of a picture


class Metrics:
    """The figures of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def histogram(
            name: str, about: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = _TIMES
        ) -> Histogram:
            return Histogram(name, about, labels, buckets=buckets, registry=self._registry)

        def gauge(name: str, about: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, about, labels, registry=self._registry)

        def counter(name: str, about: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, about, labels, registry=self._registry)

        self.requests = counter("depth_requests", "Answers", ("route", "status"))
        self.duration = histogram(
            "depth_request_duration_seconds", "From the headers to the end of the answer", ("route",)
        )
        self.queue_length = gauge("depth_queue_length", "Pictures that were accepted and are not answered")
        self.queue_wait = histogram("depth_queue_wait_seconds", "From a prepared picture to its run of the network")
        self.network = histogram("depth_network_duration_seconds", "One run of the network", ("model",))
        self.batch = histogram("depth_batch_size", "Pictures in one run", buckets=(1, 2, 4, 8, 16, 32))
        self.pictures = counter("depth_pictures", "Pictures by what became of them", ("result",))
        self.pixels = counter("depth_pixels", "Pixels of the depth maps that were made")
        self.jobs = gauge("depth_jobs", "Clips and scenes by state", ("state",))
        self.loaded = gauge("depth_model_loaded", "1 if the model is loaded", ("model",))
        self._info = Info("depth_build", "Version and backend", registry=self._registry)
        self._info.info({"version": __version__, "engine": ""})

    def engine(self, description: str) -> None:
        """Note the backend of the first model."""
        self._info.info({"version": __version__, "engine": description})

    def text(self) -> bytes:
        """Return all figures in Prometheus's text format."""
        return generate_latest(self._registry)
