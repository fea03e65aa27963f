"""The parameters of requests for objects: the names are those of `depth objects`."""

from __future__ import annotations

from typing import Annotated, Optional

from pydantic import BaseModel, ConfigDict, Field

from depthcli.choices.objects import ObjectsChoice, object_files
from depthcli.choices.settings import DEFAULT_COLORMAP
from depthcli.errors import UsageError
from depthcli.jobs.parsing import parse_list
from depthcli.pixels.colormap import color_table
from depthcli.serve.queries import PictureQuery


class ChoiceQuery(BaseModel):
    """Which objects are measured, and how their files look."""

    model_config = ConfigDict(extra="forbid")

    classes: Annotated[str, Field(description="Only these: person,car, or their numbers.")] = ""
    threshold: Annotated[float, Field(description="Least score of a detection, 0 to 1.")] = 0.5
    max_objects: Annotated[Optional[int], Field(description="At most so many, the surest.")] = None
    trim_px: Annotated[Optional[float], Field(description="Leave out so much along the edge of a mask.")] = None
    overlap: Annotated[float, Field(description="Drop a detection that covers a better one by this, 0 to 1.")] = 0.8
    sort: Annotated[str, Field(description="distance, score, area or label.")] = "distance"
    require_metric: Annotated[bool, Field(description="Refuse depth that has no metres.")] = False
    colormap: Annotated[str, Field(description="Of the overlay, as of POST /v1/depth.")] = DEFAULT_COLORMAP

    @property
    def choice(self) -> ObjectsChoice:
        """Which objects are measured. Raises UsageError."""
        color_table(self.colormap)
        return ObjectsChoice(
            parse_list([self.classes]),
            self.threshold,
            self.max_objects,
            self.trim_px,
            self.overlap,
            self.sort,
            self.require_metric,
        )


class ObjectsQuery(ChoiceQuery, PictureQuery):
    """How the objects of a picture are found and measured, and what the answer holds."""

    format: Annotated[
        list[str],
        Field(default_factory=lambda: ["json"], description="json, overlay, masks, mattes, exr; several: a ZIP."),
    ]

    @property
    def formats(self) -> tuple[str, ...]:
        """The files of the answer. Raises UsageError."""
        return formats_of(self.format)


def formats_of(names: list[str]) -> tuple[str, ...]:
    """Return the files that an answer holds. Raises UsageError."""
    found = object_files(names)
    if not found:
        raise UsageError("no format is named", "such as json or overlay")
    return found
