"""The table of output formats for pictures and clips. Imports nothing, so that help texts can list the rows."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Optional

from depthcli.errors import UsageError

if TYPE_CHECKING:
    from depthcli.kinds import DepthKind

SIDE_GAP = 50  # white pixels between photo and depth, as in the official scripts


class Holds(str, enum.Enum):
    """What the pixels of a file hold.

    COLOR: (H, W, 3) uint8, RGB of a colour map; (H, W, 4) with alpha if pixels are invalid.
    GRAY8: (H, W) uint8, white is near.
    GRAY16: (H, W) uint16, millimetres of metric depth; of other kinds white is near.
    SHADES: (H, W) uint16, white is near, also for metric depth: what 10 bits are made of.
    METRES: (H, W) uint16, metres times the scale of the format; 0 if invalid, or beyond 65535. Metric depth alone.
    VALUES: (H, W) float32, the numbers of the model; NaN if invalid.
    NORMALS: (H, W, 3) uint8, directions of surfaces; (H, W, 4) with alpha if pixels are invalid.
    POINTS, MESH: no pixels, but points or triangles in space.
    """

    COLOR = "color"
    GRAY8 = "gray8"
    GRAY16 = "gray16"
    SHADES = "shades"
    METRES = "metres"
    VALUES = "values"
    NORMALS = "normals"
    POINTS = "points"
    MESH = "mesh"


@dataclass(frozen=True)
class Format:
    """One output format.

    still: ending behind a picture's stem; empty for a format of clips only. old_name: second name, in clips' sidecars.
    clip: ending behind a clip's stem; without a suffix it is a folder with one file per frame; empty for a format of
    pictures only.
    beside: the picture, or the clip, stands left of the depth, after `gap` white columns in a still.
    scale: codes per metre, of METRES. rotated: their 16 bits are rotated by three places to the left.
    inverse: depth is shown as its inverse, and metric depth from 1 / infinity on. percentiles: ends of the shades.
    black: black is near. colormap: the only one it has. whole: it cannot mark invalid pixels, and has none.
    """

    name: str
    what: str
    holds: Holds
    still: str
    clip: str
    old_name: str = ""
    beside: bool = False
    gap: int = 0
    scale: float = 0.0
    rotated: bool = False
    inverse: bool = False
    percentiles: Optional[tuple[float, float]] = None
    black: bool = False
    colormap: str = ""
    whole: bool = False

    @property
    def suffix(self) -> str:
        """Suffix of a picture's file, or of one frame, with its dot."""
        return PurePath(self.still).suffix

    @property
    def spatial(self) -> bool:
        """Whether the camera and its guesses count, because the file holds directions or places in space."""
        return self.holds in (Holds.NORMALS, Holds.POINTS, Holds.MESH)

    @property
    def shape(self) -> bool:
        """Whether the file holds points or a mesh, and no pixels."""
        return self.holds in (Holds.POINTS, Holds.MESH)

    @property
    def folder(self) -> bool:
        """Whether a clip becomes a folder of files."""
        return not PurePath(f"x{self.clip}").suffix

    @property
    def page(self) -> bool:
        """Whether a clip becomes one page, which shows the meshes of its frames."""
        return self.shape and not self.folder

    def frame_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (width, height) of the frames that show a clip of this size."""
        return (2 * size[0], size[1]) if self.beside else size


FORMATS = (
    Format("color", "8-bit colour PNG", Holds.COLOR, "_depth.png", "_depth_color"),
    Format(
        "gray",
        "16-bit gray PNG: white is near, or millimetres for metric models",
        Holds.GRAY16,
        "_depth_gray.png",
        "_depth_png",
        old_name="png16",
    ),
    Format("gray8", "8-bit gray PNG, white is near", Holds.GRAY8, "_depth_gray8.png", "_depth_gray8"),
    Format("npz", "float32 numbers of the model", Holds.VALUES, "_depth.npz", "_depth_npz"),
    Format("exr", "float32 numbers of the model in Z and RGB of OpenEXR", Holds.VALUES, "_depth.exr", "_depth_exr"),
    Format("far0", "1 / depth in OpenEXR, 0 at infinity", Holds.VALUES, "_depth_far0.exr", "", inverse=True),
    Format("tiff", "float32 numbers of the model, TIFF", Holds.VALUES, "_depth.tiff", "_depth_tiff"),
    Format("pfm", "float32 numbers of the model, PFM", Holds.VALUES, "_depth.pfm", "_depth_pfm"),
    Format("npy", "float32 numbers of the model, NPY", Holds.VALUES, "_depth.npy", "_depth_npy"),
    Format("mm", "metric depth in millimetres, 16-bit PNG", Holds.METRES, "_depth_mm.png", "_depth_mm", scale=1000),
    Format("scannet", "the same", Holds.METRES, "_depth_scannet.png", "_depth_scannet", scale=1000),
    Format(
        "kitti", "metric depth, metres x 256, 16-bit PNG", Holds.METRES, "_depth_kitti.png", "_depth_kitti", scale=256
    ),
    Format("tum", "metric depth, metres x 5000, 16-bit PNG", Holds.METRES, "_depth_tum.png", "_depth_tum", scale=5000),
    Format(
        "sun",
        "metric depth in millimetres with rotated bits, 16-bit PNG",
        Holds.METRES,
        "_depth_sun.png",
        "_depth_sun",
        scale=1000,
        rotated=True,
    ),
    Format(
        "controlnet",
        "8-bit gray PNG of inverse depth, white is near, from its 1st to its 99th percentile",
        Holds.GRAY8,
        "_depth_controlnet.png",
        "_depth_controlnet",
        inverse=True,
        percentiles=(1, 99),
    ),
    Format(
        "3dgs",
        "16-bit PNG of inverse depth, one scale for all, as 3D Gaussian splatting reads it",
        Holds.SHADES,
        "_depth_3dgs.png",
        "_depth_3dgs",
        inverse=True,
        whole=True,
    ),
    Format(
        "white",
        "16-bit gray PNG, white is near, also for metric depth",
        Holds.SHADES,
        "_depth_white.png",
        "_depth_white",
    ),
    Format("black", "the same, black is near", Holds.SHADES, "_depth_black.png", "_depth_black", black=True),
    Format(
        "rgbd",
        "picture and gray depth side by side, white is near",
        Holds.COLOR,
        "_depth_rgbd.png",
        "_depth_rgbd",
        beside=True,
        gap=0,
        colormap="gray",
    ),
    Format("mp4", "coloured depth as H.264, which plays everywhere", Holds.COLOR, "", "_depth.mp4"),
    Format(
        "side",
        "picture and colour side by side: PNG, or a film as H.264",
        Holds.COLOR,
        "_depth_side.png",
        "_depth_side.mp4",
        beside=True,
        gap=SIDE_GAP,
    ),
    Format("ply", "points with colours and normals, PLY", Holds.POINTS, "_depth.ply", "_depth_ply"),
    Format("pcd", "the same points, PCD", Holds.POINTS, "_depth.pcd", "_depth_pcd"),
    Format("laz", "the same points without normals, LAZ, by the extra [las]", Holds.POINTS, "_depth.laz", "_depth_laz"),
    Format("glb", "mesh with the picture on it, and a camera: glTF 2.0", Holds.MESH, "_depth.glb", "_depth_glb"),
    Format("obj", "the same mesh as OBJ, with its .mtl and .jpg beside it", Holds.MESH, "_depth.obj", "_depth_obj"),
    Format("usdz", "the same mesh for AR on phones, USDZ", Holds.MESH, "_depth.usdz", "_depth_usdz"),
    Format("html", "page that shows the mesh in any browser, in one file", Holds.MESH, "_depth.html", "_depth.html"),
    Format("normal", "directions of surfaces, 8-bit PNG", Holds.NORMALS, "_depth_normal.png", "_depth_normal"),
    Format("ffv1", "16-bit gray without loss, FFV1 in Matroska", Holds.GRAY16, "", "_depth.mkv"),
    Format("hevc10", "10-bit gray as HEVC, small", Holds.SHADES, "", "_depth_hevc.mp4"),
    Format("prores", "10-bit gray as ProRes 422 HQ, for editors", Holds.SHADES, "", "_depth.mov"),
)
# By the name that files and jobs know them by; of clips the films come first.
STILLS: Mapping[str, Format] = {row.name: row for row in FORMATS if row.still}
CLIPS: Mapping[str, Format] = {
    row.old_name or row.name: row for row in sorted(FORMATS, key=lambda row: row.folder) if row.clip
}
# Films of two eyes; a layout gives each its name, and -444 keeps the colour of each pixel.
STEREO_FILMS = tuple(
    Format(f"stereo-{suffix}{chroma}", "two eyes as H.264", Holds.COLOR, "", f"_stereo.{suffix}", beside=True)
    for suffix in ("mp4", "mov", "mkv")
    for chroma in ("", "-444")
)
# The files of DepthCrafter's own script: at the network's size, depth from 0 to 1 over the whole clip.
CRAFTER_FILES = (
    Format("crafter-gray", "gray, H.264", Holds.COLOR, "", "_depth.mp4", colormap="gray"),
    Format("crafter-inferno", "inferno, H.264", Holds.COLOR, "", "_vis.mp4", colormap="inferno"),
    Format("crafter-input", "the network's input, H.264", Holds.COLOR, "", "_input.mp4", beside=True),
    Format("crafter-npz", "(T, H, W) float32 in one file", Holds.VALUES, "", ".npz"),
    Format("crafter-exr", "float32 in Z of OpenEXR", Holds.VALUES, "", ""),
)
_CRAFTER_NAMES = {
    "mp4": ("crafter-gray", "crafter-inferno", "crafter-input"),
    "npz": ("crafter-npz",),
    "exr": ("crafter-exr",),
}
# All that a clip can become.
CLIP_ROWS: Mapping[str, Format] = {**CLIPS, **{row.name: row for row in (*STEREO_FILMS, *CRAFTER_FILES)}}
STILL_ENDINGS = tuple(row.still for row in STILLS.values())
_STILL_SUFFIXES = frozenset(row.suffix for row in STILLS.values())
# Files without a map: points, meshes, and the picture beside an OBJ.
SHAPE_SUFFIXES = (".ply", ".pcd", ".laz", ".glb", ".obj", ".usdz", ".html")
TEXTURE_ENDING = "_texture.jpg"


def parse_formats(names: Sequence[str], known: Mapping[str, Format] = STILLS) -> tuple[str, ...]:
    """Return the names of formats in `known` (STILLS or CLIPS), in order, each once.

    names: each may be a list with commas. Raises UsageError for an unknown name, and if there is none.
    """
    wanted = [name.strip() for item in names for name in item.split(",") if name.strip()]
    kind = "video" if known is CLIPS else "output"
    choices = f"choose from: {', '.join(known)}"
    if not wanted:
        raise UsageError(f"no {kind} format given", choices)
    keys = {name: key for key, row in known.items() for name in (row.name, row.old_name)}
    for name in wanted:
        if name in CLIPS and name not in keys:
            raise UsageError(f"{name} is a film, which only clips become", choices)
        if name not in keys:
            raise UsageError(f"no {kind} format is called {name!r}", choices)
    return tuple(dict.fromkeys(keys[name] for name in wanted))


def crafter_files(names: Sequence[str]) -> tuple[str, ...]:
    """Return the files of DepthCrafter's own script for some of mp4, npz and exr. Raises UsageError for others."""
    for name in names:
        if name not in _CRAFTER_NAMES:
            raise UsageError(
                f"DepthCrafter's own script does not write {CLIPS[name].name}",
                f"with `exact` choose from: {', '.join(_CRAFTER_NAMES)}",
            )
    return tuple(file for name in names for file in _CRAFTER_NAMES[name])


def suffix_of(path: PurePath | str) -> str:
    """Return the suffix of a file in lower case; .tiff for .tif."""
    suffix = PurePath(path).suffix.lower()
    return ".tiff" if suffix == ".tif" else suffix


def implied_format(path: PurePath | str, default: str) -> str:
    """Return the format of a picture's file by its suffix; `default` for PNG, which several formats have."""
    suffix = suffix_of(path)
    return next((row.name for row in STILLS.values() if row.suffix == suffix != ".png"), default)


def may_be_ours(path: PurePath) -> bool:
    """Return whether a file has a name that a file of ours can have. Not every JPEG is worth a look."""
    suffix = suffix_of(path)
    return suffix in _STILL_SUFFIXES or path.name.endswith(TEXTURE_ENDING)


def check_kind(format: Format, kind: DepthKind) -> None:
    """Raise UsageError for a format of metres, and a kind that has none."""
    if format.holds is Holds.METRES and not kind.is_metric:
        raise UsageError(
            f"{format.name} holds metres, and this depth is {kind.value}",
            "use a model with `metric`, `scale_from`, or a format for relative depth: npz, exr, tiff, pfm, npy, gray",
        )
