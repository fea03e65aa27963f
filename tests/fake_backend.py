"""A backend made of plain functions: one per graph, from its named inputs to its named outputs."""

from __future__ import annotations

from typing import Any, Callable, Optional

from depthcli.backends import Traits


class FakeBackend:
    """Runs `graphs` on the host; every input size fits."""

    def __init__(self, best_batch: int = 1, **graphs: Callable[[Any], Any]) -> None:
        self.traits = Traits("fake", "1", "cpu", "fp32", graphs=tuple(graphs), best_batch=best_batch)
        self._graphs = graphs
        self.closed = 0

    def fit(self, plan: Any) -> Any:
        return plan

    def check(self, plan: Any, batch: int, further: Any = ()) -> None:
        pass

    def run(self, inputs: Any, graph: str = "depth", replica: Optional[int] = None) -> Any:
        return self._graphs[graph](inputs)

    def close(self) -> None:
        self.closed += 1


def clip_backend(encode: Callable[[Any], Any], decode: Callable[[Any], Any], best_batch: int = 1) -> FakeBackend:
    """Return a backend for clips. encode: images -> features, decode: a window's features -> its maps."""
    return FakeBackend(
        best_batch,
        encode=lambda inputs: {"features": encode(inputs["image"])},
        decode=lambda inputs: {"depth": decode(inputs["features"])},
    )
