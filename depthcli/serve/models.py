"""The models of a service: the first stays loaded, others are loaded when they are asked for, and leave when idle."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Optional, Union, cast

from depthcli.choices.model import ModelChoice
from depthcli.choices.scenes import ViewsChoice
from depthcli.errors import DepthError, Log, ModelError, UsageError
from depthcli.host.memory import free_memory
from depthcli.predict.picture import DepthEstimator
from depthcli.predict.scene import SceneEstimator
from depthcli.serve.metrics import Metrics
from depthcli.serve.settings import ServiceSettings
from depthcli.zoo.rows import ModelRow, ModelTask, find_row, with_max_depth

_ROOM = 3  # a network that is loaded takes so many times the size of its weights, at most


@dataclass
class _Loaded:
    """A model that is loaded. users: requests that use it now. used: when the last one ended, on time.monotonic.

    form: how a model for scenes was opened, None for others.
    """

    estimator: Union[DepthEstimator, SceneEstimator]
    users: int = 0
    used: float = 0.0
    form: Hashable = None


class Models:
    """The models that a service may load, by name. Threads may share it. `close` it in the end."""

    def __init__(self, settings: ServiceSettings, metrics: Metrics, log: Log) -> None:
        self._settings, self._metrics, self._log = settings, metrics, log
        self._loaded: dict[str, _Loaded] = {}
        self._loading = threading.Lock()
        self._lock = threading.Lock()
        self.error: Optional[DepthError] = None  # of the last load of the first model
        self.names = tuple(settings.models)
        if self.names and find_row(self.names[0]).task is not ModelTask.PICTURE:
            raise UsageError(f"{self.names[0]} is a model for {_for(self.names[0])}", "name one for pictures first")
        if self.scene_names and settings.clips is None:
            raise UsageError(f"scenes of {self.scene_names[0]} need a folder", "give one with `clips`")

    @property
    def scene_names(self) -> tuple[str, ...]:
        """The models for scenes."""
        return tuple(name for name in self.names if find_row(name).task is ModelTask.SCENE)

    def load_first(self) -> DepthEstimator:
        """Load the first model; the automatic choice is made here. Raises UsageError, ModelError or EngineError."""
        if not self.names:
            estimator = self._open(self._settings.choice)
            self.names = (estimator.row.name,)
            self._keep(estimator.row.name, estimator)
            return estimator
        with self.use(self.names[0]) as loaded:
            return loaded

    def check(self, name: Optional[str]) -> str:
        """Return the name of a model, of the first for None. Raises UsageError for one that is not offered."""
        if name is None:
            return self.names[0]
        if name not in self.names:
            raise UsageError(f"this service has no model {name!r}", f"choose from: {', '.join(self.names)}")
        if find_row(name).task is not ModelTask.PICTURE:
            raise UsageError(f"{name} is a model for {_for(name)}", f"send it {_for(name)}")
        return name

    def check_clip(self, name: Optional[str]) -> str:
        """Return the name of a model for a clip; for None the first for clips, else the first. Raises UsageError."""
        if name is None:
            return next((each for each in self.names if find_row(each).task is ModelTask.CLIP), self.names[0])
        if name not in self.names:
            raise UsageError(f"this service has no model {name!r}", f"choose from: {', '.join(self.names)}")
        if name in self.scene_names:
            raise UsageError(f"{name} is a model for scenes", "send it to /v1/scenes")
        return name

    def check_scene(self, name: Optional[str]) -> str:
        """Return the name of a model for a scene, of the first such for None. Raises UsageError."""
        if not self.scene_names:
            raise UsageError(
                "this service has no model for scenes", "start it with `clips` and `models`, such as tiny,da3-small"
            )
        if name is None:
            return self.scene_names[0]
        if name not in self.scene_names:
            raise UsageError(
                f"this service has no model {name!r} for scenes", f"choose from: {', '.join(self.scene_names)}"
            )
        return name

    def is_loaded(self, name: str) -> bool:
        """Return whether a model is loaded."""
        return name in self._loaded

    @contextmanager
    def use(self, name: str) -> Iterator[DepthEstimator]:
        """Give a model, loaded if need be, which may download; it stays loaded in the block."""
        estimator = self.take(name)
        try:
            yield estimator
        finally:
            self.give_back(name)

    @contextmanager
    def use_scene(self, name: str, views: ViewsChoice, **wanted: bool) -> Iterator[SceneEstimator]:
        """Give a model for scenes, loaded if need be; it stays loaded in the block.

        views: how views go through it. wanted: further arguments of SceneEstimator. One that is loaded otherwise is
        loaded anew, as only one scene is made at a time.
        """
        form = (views, *sorted(wanted.items()))
        with self._loading:
            with self._lock:
                found = self._loaded.get(name)
                dropped = [self._loaded.pop(name)] if found is not None and found.form != form else []
            self._close(dropped)
            if found is None or dropped:
                self._make_room(find_row(name).weights.bytes or 0)
                choice = replace(self._settings.choice, model=name)
                estimator = SceneEstimator(choice, self._settings.backend, views=views, log=self._log, **wanted)
                found = self._keep(name, estimator, form=form)
            with self._lock:
                found.users += 1
        try:
            yield cast(SceneEstimator, found.estimator)
        finally:
            self.give_back(name)

    def take(self, name: str) -> DepthEstimator:
        """Return a model, loaded if need be; it stays loaded until `give_back`."""
        return self.take_loaded(name) or self._load(name)

    def take_loaded(self, name: str) -> Optional[DepthEstimator]:
        """Return a model as `take` does, None if it is not loaded."""
        with self._lock:
            found = self._loaded.get(name)
            if found is None:
                return None
            found.users += 1
            return cast(DepthEstimator, found.estimator)

    def give_back(self, name: str) -> None:
        """End a use that `take` began."""
        with self._lock:
            found = self._loaded[name]
            found.users -= 1
            found.used = time.monotonic()
        if self._settings.keep_alive == 0:
            self.drop_idle()

    def drop_idle(self) -> None:
        """Free the models that nobody has asked for in the time that they are kept."""
        since = time.monotonic() - self._settings.keep_alive
        with self._lock:
            idle = [name for name, item in self._idle() if item.used <= since]
            dropped = [self._loaded.pop(name) for name in idle]
        self._close(dropped)

    def describe(self) -> list[dict[str, Any]]:
        """Return what clients may know of each model, JSON-ready."""
        described = []
        for name in self.names:
            row, found = find_row(name), self._loaded.get(name)
            if self._settings.choice.max_depth is not None:
                row = with_max_depth(row, self._settings.choice.max_depth)
            estimator = found.estimator if found else None
            picture = cast(DepthEstimator, found.estimator) if found is not None and found.form is None else None
            described.append(
                {
                    "name": name,
                    "title": row.title,
                    "licence": row.licence,
                    "task": row.task.value,
                    "kind": row.kind.value,
                    "unit": row.kind.unit,
                    "near_is": "high" if row.kind.near_is_high else "low",
                    "input_size": self._input_size(row, picture),
                    "loaded": estimator is not None,
                    "weights_sha256": estimator.weights.sha256 if estimator else None,
                    "backend": estimator.description if estimator else None,
                    "remembered": picture.remembered if picture else None,
                }
            )
        return described

    def close(self) -> None:
        """Free all models."""
        with self._lock:
            dropped = list(self._loaded.values())
            self._loaded.clear()
        self._close(dropped)

    def _idle(self) -> list[tuple[str, _Loaded]]:
        """Return the models that may go, the one that was used longest ago first."""
        found = [(name, item) for name, item in self._loaded.items() if name != self.names[0] and not item.users]
        return sorted(found, key=lambda entry: entry[1].used)

    def _input_size(self, row: ModelRow, loaded: Optional[DepthEstimator]) -> int:
        if loaded is not None:
            return loaded.input_size
        return (self._settings.input_size if row.task is not ModelTask.SCENE else None) or row.input_size

    def _load(self, name: str) -> DepthEstimator:
        with self._loading:
            found = self.take_loaded(name)
            if found is not None:  # another request has loaded it
                return found
            if self.names and name != self.names[0]:
                self._make_room(find_row(name).weights.bytes or 0)
            choice = replace(self._settings.choice, model=name)
            try:
                estimator = self._open(choice)
            except (ModelError, DepthError) as error:
                if name == self.names[0]:
                    self.error = error
                raise
            if name == self.names[0]:
                self.error = None
            self._keep(name, estimator, users=1)
            return estimator

    def _open(self, choice: ModelChoice) -> DepthEstimator:
        settings = self._settings
        return DepthEstimator(choice, settings.backend, input_size=settings.input_size, log=self._log)

    def _keep(
        self, name: str, estimator: Union[DepthEstimator, SceneEstimator], users: int = 0, form: Hashable = None
    ) -> _Loaded:
        found = _Loaded(estimator, users, time.monotonic(), form)
        with self._lock:
            self._loaded[name] = found
        self._metrics.loaded.labels(name).set(1)
        if name == self.names[0]:
            self._metrics.engine(estimator.description)
        return found

    def _make_room(self, size: int) -> None:
        """Free idle models, the longest unused first, until another one fits."""
        while True:
            free = free_memory()
            with self._lock:
                idle = self._idle()
                if free is None or free >= _ROOM * size or not idle:
                    return
                dropped = self._loaded.pop(idle[0][0])
            self._close([dropped])

    def _close(self, dropped: list[_Loaded]) -> None:
        for item in dropped:
            self._metrics.loaded.labels(item.estimator.row.name).set(0)
            item.estimator.close()


def _for(name: str) -> str:
    """Return what a model that is not for pictures is for."""
    return "scenes" if find_row(name).task is ModelTask.SCENE else "clips"
