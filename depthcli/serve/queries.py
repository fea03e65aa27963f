"""The parameters of requests: the names are the settings of the command line, and an unknown one is an error."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, Optional

from pydantic import BaseModel, ConfigDict, Field

from depthcli.choices.camera import CameraChoice
from depthcli.choices.metres import MetresChoice
from depthcli.choices.model import shaping_settings
from depthcli.choices.shapes import ShapeChoice
from depthcli.errors import UsageError
from depthcli.io.codecs.formats import STILLS, parse_formats
from depthcli.io.names import printable
from depthcli.predict.picture import DepthEstimator, open_cameras, open_metres
from depthcli.serve.answers import RAW, Wanted
from depthcli.serve.settings import ServiceSettings

_MOST_NAME = 1024


class ShapeQuery(BaseModel):
    """How points and meshes are made."""

    model_config = ConfigDict(extra="forbid")

    axes: Annotated[Optional[str], Field(description="Of points and meshes: opengl, opencv or zup.")] = None
    edges: Annotated[str, Field(description="Cut where depth jumps by this part of itself; off: never.")] = "0.04"
    points: Annotated[str, Field(description="Most points, or all.")] = "1000000"
    mesh_size: Annotated[int, Field(description="Most vertices along the longer side of a mesh.")] = 512
    farthest: Annotated[Optional[float], Field(description="Leave out what is farther.")] = None

    @property
    def shape(self) -> ShapeChoice:
        """How points and meshes are made."""
        edges = None if self.edges == "off" else number_of("edges", self.edges)
        points = None if self.points == "all" else int(number_of("points", self.points))
        return ShapeChoice(self.axes, edges, points, self.mesh_size, self.farthest)


class SpaceQuery(BaseModel):
    """The camera, and what makes metres."""

    model_config = ConfigDict(extra="forbid")

    focal: Annotated[Optional[float], Field(description="Focal length in pixels.")] = None
    fov: Annotated[
        Optional[str], Field(description="Angle of view in degrees; v:45 its height, d:75 its diagonal.")
    ] = None
    f35: Annotated[Optional[float], Field(description="Focal length as on 35 mm film, in millimetres.")] = None
    intrinsics: Annotated[Optional[str], Field(description="fx,fy,cx,cy in pixels.")] = None
    scale_from: Annotated[
        list[str], Field(default_factory=list, description="Measured: at:u,v=METRES, ground:HEIGHT, ... Repeatable.")
    ]
    fit: Annotated[str, Field(description="auto, scale, line or isotonic.")] = "auto"
    scale: Annotated[Optional[float], Field(description="Multiply the metres of a metric model.")] = None

    @property
    def camera(self) -> CameraChoice:
        """The camera. Raises UsageError for a file: a service opens none that a request names."""
        choice = CameraChoice(self.intrinsics, self.focal, self.fov, self.f35)
        if choice.intrinsics is not None and choice.inline is None:
            raise UsageError(f"{self.intrinsics!r} is not a camera", "give `intrinsics` as fx,fy,cx,cy")
        return choice

    @property
    def metres(self) -> MetresChoice:
        """What makes metres. Raises UsageError for a file."""
        choice = MetresChoice(tuple(self.scale_from), self.fit, self.scale)
        for reference in choice.references:
            if reference.path is not None:
                raise UsageError(
                    f"{reference.text!r} is not a reference", "such as at:812,540=2.35: a service opens no files"
                )
        return choice


class LookQuery(ShapeQuery):
    """How a depth map becomes files."""

    colormap: Annotated[str, Field(description="Such as inferno, turbo, gray; _r reverses.")] = "Spectral_r"
    max_side: Annotated[Optional[int], Field(description="Longest side of f16 and f32, in pixels.")] = None
    file: Annotated[
        list[str], Field(default_factory=list, description="Names of the files in a ZIP, one for each format.")
    ]

    def look(self, formats: list[str]) -> Wanted:
        """Return what an answer in these formats holds. Raises UsageError."""
        names = [name.strip() for item in formats for name in item.split(",")]
        return Wanted(_known(names), self.colormap, self.shape, tuple(self.file), self.max_side)


class PictureQuery(SpaceQuery):
    """How the depth of a picture is estimated."""

    model: Annotated[Optional[str], Field(description="One of the models of GET /v1; the first if none is named.")] = (
        None
    )
    input_size: Annotated[
        Optional[int], Field(description="Shorter side of the network input, in pixels.", le=2072)
    ] = None
    name: Annotated[
        str, Field(description="Name of the picture, for its files and for messages.", max_length=_MOST_NAME)
    ] = ""
    detail: Annotated[str, Field(description="For large pictures: off, edges or tiles.")] = "off"

    @property
    def is_panorama(self) -> bool:
        """Whether the picture is a panorama."""
        return False

    @property
    def keeps_alpha(self) -> bool:
        """Whether transparent pixels get no depth."""
        return False

    @property
    def shown_name(self) -> str:
        """The name of the picture in messages, "" if it has none."""
        return printable(self.name)

    def variant(self, estimator: DepthEstimator) -> DepthEstimator:
        """Return an estimator with the options of this request. Raises UsageError."""
        return estimator.variant(
            input_size=self.input_size,
            panorama=self.is_panorama,
            detail=self.detail,
            camera=self.camera,
            metres=self.metres,
        )

    def settings(self, model: str, service: ServiceSettings) -> dict[str, Any]:
        """Return what shapes the depth, as files note it: the options of a command that names the model."""
        choice, size = replace(service.choice, model=model), self.input_size or service.input_size
        cameras = open_cameras(self.camera, self.is_panorama)
        metres = open_metres(self.metres, self.is_panorama)
        return {
            **shaping_settings(choice, service.backend, size, self.is_panorama, self.detail),
            **(cameras.settings if cameras else {}),
            **(metres.settings if metres else {}),
            "keep-alpha": self.keeps_alpha or None,
        }


class DepthQuery(LookQuery, PictureQuery):
    """How the depth of a picture is estimated, and what the answer holds."""

    format: Annotated[
        list[str],
        Field(default_factory=lambda: ["color"], description="Formats of `depth image`, or f16 or f32: bare numbers."),
    ]
    keep: Annotated[bool, Field(description="Keep the depth map: 201, and its address in Location.")] = False
    keep_alpha: Annotated[bool, Field(description="Transparent pixels get no depth.")] = False
    panorama: Annotated[bool, Field(description="A 360-degree panorama: no seam at the edges.")] = False

    @property
    def is_panorama(self) -> bool:
        """Whether the picture is a panorama."""
        return self.panorama

    @property
    def keeps_alpha(self) -> bool:
        """Whether transparent pixels get no depth."""
        return self.keep_alpha

    def wanted(self) -> Wanted:
        """Return what the answer holds. Raises UsageError."""
        if self.keep and "format" in self.model_fields_set:
            raise UsageError(
                "keep answers with an address, and no format", "leave format out, and ask for it there: ADDRESS/FORMAT"
            )
        wanted = self.look(self.format)
        if self.panorama and any(_is_spatial(name) for name in wanted.formats):
            raise UsageError("points, meshes and normals cannot be made of a panorama", "leave out `panorama`")
        return wanted


def _known(names: list[str]) -> tuple[str, ...]:
    """Return formats of files, or one of RAW by itself. Raises UsageError."""
    raw = [name for name in names if name in RAW]
    if raw:
        return tuple(names)  # others beside it are refused there
    try:
        return parse_formats(names)
    except UsageError as error:
        raise UsageError(error.message, f"{error.hint}; or bare numbers: {', '.join(RAW)}") from None


def _is_spatial(name: str) -> bool:
    """Return whether a format needs a camera that sees through a pinhole."""
    return name in STILLS and STILLS[name].spatial


def number_of(setting: str, text: str) -> float:
    """Return the number that a parameter is. Raises UsageError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"`{setting}` is {text!r}", "give a number")
    return number
