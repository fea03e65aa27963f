"""Tell what a file is: the kind and unit of its depth, its range, and its camera. No model is loaded."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from depthcli.calibration import calibration_of
from depthcli.camera import LensModel, camera_of, describe_camera
from depthcli.depthmap import DepthKind
from depthcli.errors import DepthError, OutputError, PictureError, UsageError
from depthcli.geometry.solids import Mesh
from depthcli.io.cameras.files import read_cameras
from depthcli.io.cameras.stored import StoredCamera
from depthcli.io.codecs import exr
from depthcli.io.codecs.arrays import check_pixels, open_npz
from depthcli.io.codecs.files import is_cut_short, read_facts
from depthcli.io.codecs.numbers import read_numbers
from depthcli.io.codecs.quick_facts import parse_facts
from depthcli.io.names import printable, sidecar_of
from depthcli.io.pictures import tiff
from depthcli.io.pictures.files import may_be_listed
from depthcli.io.pictures.images import picture_header
from depthcli.io.points.files import SUFFIXES, read_shape

_MOST_JSON = 1 << 28  # bytes
_MOST_COMMENTS = 5
_MOST_CALIBRATION = 1 << 20
_FILM = rb"....(ftyp|moov|mdat|free|wide)|RIFF....AVI |\x1aE\xdf\xa3"
# (name, codes in a metre) of the 16-bit encodings in use: ROS, ScanNet and Open3D; KITTI; TUM
_CODES = (("millimetres", 1000.0), ("KITTI", 256.0), ("TUM", 5000.0))


@dataclass(frozen=True)
class FileInfo:
    """What a file is. None and empty: the file does not tell.

    what: in words. size: (width, height). kind: of depth, see DepthKind. unit: "m", or None for numbers without one.
    range: (smallest, largest) valid number. invalid: share of the pixels without depth, 0 to 1; of a stranger's file,
    those that are 0, NaN or infinite. camera: as in the facts of our files. model, backend, source: what made it, and
    of which picture. notes: what else there is to say.
    """

    file: str
    what: str
    size: Optional[tuple[int, int]] = None
    kind: Optional[str] = None
    unit: Optional[str] = None
    range: Optional[tuple[float, float]] = None
    invalid: Optional[float] = None
    camera: Optional[dict[str, Any]] = None
    model: str = ""
    backend: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return one line of JSON with every field."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def lines(self) -> list[str]:
        """Return the lines for people: the file, then its facts."""
        rows = [
            ("kind", DepthKind(self.kind).value + ": " + DepthKind(self.kind).meaning if self.kind else ""),
            ("size", _by(self.size) if self.size else ""),
            ("range", "" if self.range is None else f"{self.range[0]:.6g} to {self.range[1]:.6g}"),
            ("unit", "" if self.range is None else self.unit or ("none" if self.kind else "not stated")),
            ("invalid", self._invalid_share()),
            ("camera", _camera_line(self.camera)),
            ("model", ", ".join(filter(None, (self.model, self.backend)))),
            ("source", self.source),
            *(("", note) for note in self.notes),
        ]
        lines = [f"{self.file}: {self.what}", *(f"  {name:9}{text}" for name, text in rows if text)]
        return [*map(printable, lines)]

    def _invalid_share(self) -> str:
        if self.invalid is None:
            return ""
        return f"{self.invalid:.2%} of the pixels" + ("" if self.kind else " (0, NaN or infinity)")


def examine(path: Path) -> FileInfo:
    """Return what a file is. Raises DepthError, one line, for a file that is nothing known here."""
    try:
        if os.path.isdir(path):
            return _folder(path)
        if not os.path.isfile(path):
            raise DepthError(
                f"{path} {'is not a file' if os.path.lexists(path) else 'does not exist'}", "check the path"
            )
        with path.open("rb") as file:
            head = file.read(64)
        if path.suffix.lower() in SUFFIXES:
            return _shape(path)
        if path.suffix.lower() == ".usdz":
            return _usdz(path)
        for pattern, read in _READERS:
            if re.match(pattern, head, re.DOTALL):
                return read(path)
        return _picture_or_calibration(path)
    except DepthError:
        raise
    except OSError as error:
        raise DepthError(f"{path} cannot be read: {error.strerror or error}", "check the file's permissions") from error
    except Exception as error:  # readers of zip, EXR, JSON and pictures raise many types for broken bytes
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DepthError(f"{path} cannot be read: {reason}", "copy or download it again") from error


# --- Ours -------------------------------------------------------------------------------------------------------------


def _own(path: Path, facts: Mapping[str, Any], what: str) -> FileInfo:
    if isinstance(facts.get("cameras"), list):
        return _scene(path, facts)
    size, value_range = facts.get("size"), (facts.get("min"), facts.get("max"))
    width, height = (int(side) for side in size) if size else (0, 0)
    is_clip = "video" in facts or "frame" in facts
    camera = camera_of(facts["camera"]) if facts.get("camera") else None
    invalid = facts.get("invalid_pixels", 0) / (width * height) if size and not is_clip else None
    return FileInfo(
        file=str(path),
        what=what,
        size=(width, height) if size else None,
        kind=DepthKind(facts["kind"]).value,
        unit=facts.get("units"),
        range=None if None in value_range else (float(value_range[0]), float(value_range[1])),  # type: ignore[arg-type]
        invalid=invalid,
        camera=None if camera is None else describe_camera(camera, (width, height)),
        model=str(facts.get("model", "")),
        backend=str(facts.get("engine", "")),
        source=str(facts.get("source", "")),
        notes=(*_kept(facts), *_clip_notes(facts), *_metres(facts)),
    )


def _scene(path: Path, facts: Mapping[str, Any]) -> FileInfo:
    """Return what a file of a scene of several views is."""
    about, count = facts.get("scene", {}), len(facts["cameras"])
    notes = [f"{about.get('cameras', 'known')} cameras"]
    notes += [f"{name.replace('_', ' ')} {about[name]}" for name in ("reference", "world") if about.get(name)]
    if about.get("left_out"):
        notes.append(f"made without {', '.join(about['left_out'])}")
    return FileInfo(
        file=str(path),
        what=f"scene of {count} views by depthcli, {path.suffix[1:].upper()}",
        kind=DepthKind(facts["kind"]).value,
        unit=facts.get("unit"),
        model=str(about.get("model", "")),
        backend=str(about.get("backend", "")),
        notes=tuple(notes),
    )


def _kept(facts: Mapping[str, Any]) -> list[str]:
    """Return how exact the file holds the numbers."""
    encoding = facts.get("encoding")
    if not isinstance(encoding, Mapping):
        return []
    if encoding.get("code") == "millimetres":
        return ["held as millimetres"]
    if encoding.get("code") == "normals":
        return []
    if encoding.get("code") == "metres":
        return [f"held as metres x {encoding['scale']:g}{', bits rotated' if encoding.get('rotated') else ''}"]
    if encoding.get("inverse"):
        return [f"held in {encoding['scale']:g} steps of 1 / m, from {encoding['lo']:g} to {encoding['hi']:g}"]
    colours = encoding.get("colormap")
    steps = f"{encoding['scale']:g} steps" + (f" of the colours {colours}" if colours else "")
    return [f"held in {steps}, from {encoding['lo']:g} to {encoding['hi']:g}"]


def _metres(facts: Mapping[str, Any]) -> list[str]:
    """Return what made metres of a model's numbers."""
    found, shots = facts.get("calibration"), facts.get("shots") or ()
    lines = [calibration_of(found).line()] if isinstance(found, Mapping) else []
    return [
        *lines,
        *("frames {} to {}: {}".format(*shot["frames"], calibration_of(shot["calibration"]).line()) for shot in shots),
    ]


def _clip_notes(facts: Mapping[str, Any]) -> list[str]:
    notes = []
    frame, video = facts.get("frame"), facts.get("video")
    if isinstance(frame, Mapping):
        notes.append(f"frame {frame.get('index')} at {frame.get('time', 0):g} s; the range is that of the clip")
    if isinstance(video, Mapping) and video.get("frames"):
        notes.append(f"{video['frames']} frames")
    if facts.get("damage"):
        notes.append(str(facts["damage"]))
    return notes


def _shape(path: Path) -> FileInfo:
    try:
        shape = read_shape(path)
    except OutputError:
        if path.suffix.lower() != ".glb":
            raise
        return _scene_shape(path)
    comments: tuple[str, ...] = ()
    if isinstance(shape, Mesh):
        what, counts = "mesh", f"{len(shape.vertices):,} vertices, {len(shape.faces):,} triangles"
    else:
        what, counts, comments = "points", f"{len(shape.points):,} points", shape.comments[:_MOST_COMMENTS]
    form, notes = path.suffix[1:].upper(), (counts, f"axes {shape.axes or 'not stated'}")
    if not shape.facts:
        return FileInfo(str(path), f"{what}, {form}, not by depthcli", notes=(*notes, *comments))
    if "views" in shape.facts:
        what = f"{what} of a scene of {shape.facts['views']} views"
    info = _own(path, shape.facts, f"{what} by depthcli, {form}")
    camera = shape.facts.get("shape", {}).get("camera")
    return replace(info, unit=shape.unit, camera=camera, notes=(*info.notes, *notes))


def _scene_shape(path: Path) -> FileInfo:
    from depthcli.io.scenes.files import read_scene_shape

    found = read_scene_shape(path)
    what = "points" if len(found.colors) else "vertices"
    notes = (f"{len(found.points):,} {what}", f"{len(found.cameras)} cameras")
    return FileInfo(file=str(path), what=f"scene of {len(found.names)} views by depthcli, GLB", notes=notes)


def _folder(path: Path) -> FileInfo:
    sidecar = sidecar_of(path.resolve())
    if sidecar.is_file():
        facts = parse_facts(sidecar.read_text(encoding="utf-8"))
        if facts:
            return _own(path, facts, "depth of a clip by depthcli, a folder of frames")
    if not may_be_listed(path):
        raise DepthError(f"{path} may not be read: permission denied", "check the folder's permissions")
    return _calibration(path)


# --- Files by their first bytes ---------------------------------------------------------------------------------------


def _png(path: Path) -> FileInfo:
    facts = read_facts(path)
    if facts:
        return _own(path, facts, _ours_as(path, facts, "PNG"))
    with path.open("rb") as file:
        bits, colour = file.read(26)[24:26]
    if (bits, colour) == (16, 0):
        return _numbers(path, read_numbers(path), "16-bit gray PNG")
    return _picture(path)


def _npz(path: Path) -> FileInfo:
    facts = read_facts(path)
    if facts:
        return _own(path, facts, _ours_as(path, facts, "NPZ"))
    if is_cut_short(path):
        raise DepthError(f"{path} is truncated", "copy or download it again")
    with path.open("rb") as stream, open_npz(stream) as arrays:
        if not arrays.names:
            raise DepthError(f"{path} is an archive without arrays", "unpack it first")
        shapes = {name: arrays.shape(name) for name in arrays.names}
        listed = tuple(f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes.items())
        name = next(
            (name for name in ("depth", *shapes) if len(shapes.get(name, ())) == 2 and name != "intrinsics"), ""
        )
        values = arrays.numbers(name) if name else None
    camera = None
    if "intrinsics" in shapes:
        camera = _described(read_cameras(path).cameras[0])
    if values is None:
        return FileInfo(str(path), "NPZ, not by depthcli", camera=camera, notes=listed)
    return _numbers(path, values, f"NPZ of {values.dtype}", listed, camera)


def _npy(path: Path) -> FileInfo:
    facts = read_facts(path)
    if facts:
        return _own(path, facts, _ours_as(path, facts, "NPY"))
    values = read_numbers(path)
    return _numbers(path, values, f"NPY of {values.dtype}")


def _pfm(path: Path) -> FileInfo:
    facts = read_facts(path)
    if facts:
        return _own(path, facts, _ours_as(path, facts, "PFM"))
    return _numbers(path, read_numbers(path), "PFM")


def _exr(path: Path) -> FileInfo:
    facts = read_facts(path)
    if facts:
        return _own(path, facts, _ours_as(path, facts, "OpenEXR"))
    from depthcli.io.video.exr_frames import exr_channels

    size, channels = exr_channels(path)
    return FileInfo(str(path), "OpenEXR, not by depthcli", size, notes=(f"channels {', '.join(channels)}",))


def _page(path: Path) -> FileInfo:
    return _to_look_at(path, "page")


def _usdz(path: Path) -> FileInfo:
    return _to_look_at(path, "USDZ")


def _to_look_at(path: Path, form: str) -> FileInfo:
    """Return the info of a mesh that is written for viewers and not read back, by its facts alone."""
    facts = read_facts(path)
    if not facts:
        raise DepthError(f"{path} is no {form} by depthcli, or is broken", "name a picture or a depth file")
    cut = ", truncated" if is_cut_short(path) else ""
    counted = [
        f"{what} of {facts[key]} {key}" for what, key in (("scene", "views"), ("clip", "frames")) if key in facts
    ]
    what = counted[0] if counted else "mesh"
    return _own(path, facts, f"{what} by depthcli, {form}, which is not read back{cut}")


def _tiff(path: Path) -> FileInfo:
    """Return the info of a TIFF: one gray channel of floats or 16 bits is depth, or may be; others are pictures."""
    facts = read_facts(path)
    if facts:
        return _own(path, facts, _ours_as(path, facts, "TIFF"))
    with path.open("rb") as file:
        page = tiff.read_page(file)
        deep = page.samples == 1 and page.bits in (16, 32, 64) and page.colours == 1
        if not deep or tiff.is_for_pillow(page) or tiff.is_log_luv(page):
            return _picture(path)
        check_pixels(*page.size)
        values = tiff.read_samples(file, page)[..., 0]
    return _numbers(path, values, f"gray TIFF of {values.dtype}")


def _film(path: Path) -> FileInfo:
    from depthcli.io.video.depth_film import facts_of_film

    facts = facts_of_film(path)
    if facts:
        return _own(path, facts, "depth film by depthcli")
    try:
        return _picture(path)  # HEIC and AVIF begin as films do
    except PictureError:
        raise DepthError(f"{path} is a video, and no depth film of depthcli", "depth video makes depth of it") from None


def _json(path: Path) -> FileInfo:
    if path.stat().st_size > _MOST_JSON:
        raise DepthError(f"{path} is JSON, and too large for a description of depth")
    try:
        facts = parse_facts(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        facts = {}
    if "kind" in facts:
        return _own(path, facts, "description of depth by depthcli")
    return _calibration(path)


def _picture_or_calibration(path: Path) -> FileInfo:
    try:
        return _picture(path)
    except PictureError as error:
        picture = error
    try:
        return _calibration(path)
    except DepthError:
        if picture.message.startswith(f"{path} is not a picture"):
            raise DepthError(f"{path} is no depth, picture, film or calibration that is known here") from picture
        raise picture from None


def _picture(path: Path) -> FileInfo:
    header = picture_header(path)
    camera, orientation = header.exif.camera(header.stored), header.exif.orientation
    turned = f"stored as {_by(header.stored)}, turned by its EXIF orientation {orientation}"
    return FileInfo(
        str(path),
        "picture",
        header.size,
        camera=None if camera is None else describe_camera(camera, header.size),
        notes=(turned,) if orientation > 1 else (),
    )


def _calibration(path: Path) -> FileInfo:
    scale = _scale_and_shift(path)
    if scale is not None:
        return scale
    try:
        file = read_cameras(path)
    except UsageError as error:
        raise DepthError(error.message) from error
    first = file.cameras[0]
    count = len({stored.content for stored in file.cameras})
    notes = [*file.notes]
    if count > 1:
        notes.append(f"{count} cameras, this is the first")
    if first.view is not None:
        notes.append(f"{math.degrees(first.view):.4g} degrees across pictures of any size")
    return FileInfo(str(path), f"calibration, {file.title}", first.size, camera=_described(first), notes=tuple(notes))


def _scale_and_shift(path: Path) -> Optional[FileInfo]:
    """Return the info of a file of `depth calibrate`, None for any other."""
    if path.suffix.lower() != ".json" or not path.is_file() or os.path.getsize(path) > _MOST_CALIBRATION:
        return None
    try:
        facts = parse_facts(path.read_text(encoding="utf-8"))
        if not facts.get("calibration") or "kind" in facts:
            return None
        found = calibration_of(facts["calibration"])
    except (ValueError, KeyError, TypeError):
        return None
    what = "scale and shift by depthcli, from a model's numbers to metres"
    return FileInfo(str(path), what, model=found.model, notes=(f"for {found.kind}", found.line()))


def _described(stored: StoredCamera) -> Optional[dict[str, Any]]:
    return None if stored.camera is None else describe_camera(stored.camera, stored.size)


def _numbers(
    path: Path,
    values: np.ndarray,
    what: str,
    notes: tuple[str, ...] = (),
    camera: Optional[dict[str, Any]] = None,
) -> FileInfo:
    """Return the info of a stranger's (H, W) numbers: 0, NaN and infinity are taken as no depth."""
    known = np.isfinite(values) & (values != 0)
    found = values[known]
    span = (float(found.min()), float(found.max())) if found.size else None
    if values.dtype == np.uint16 and span:
        read_as = (f"{name} {span[0] / scale:.3g} to {span[1] / scale:.3g} m" for name, scale in _CODES)
        notes = (*notes, f"read as {', as '.join(read_as)}")
    return FileInfo(
        str(path),
        f"{what}, not by depthcli",
        (values.shape[1], values.shape[0]),
        range=span,
        invalid=1 - found.size / values.size,
        camera=camera,
        notes=notes,
    )


_READERS: tuple[tuple[bytes, Callable[[Path], FileInfo]], ...] = (
    (rb"\x89PNG", _png),
    (rb"PK", _npz),
    (re.escape(exr.MAGIC[:4]), _exr),
    (rb"\x93NUMPY", _npy),
    (rb"Pf\s", _pfm),
    (rb"II[*+]\0|MM\0[*+]", _tiff),
    (rb"(\xef\xbb\xbf)?\s*\{", _json),
    (_FILM, _film),
    (rb"(?i)<!doctype html", _page),
)


def _ours_as(path: Path, facts: Mapping[str, Any], form: str) -> str:
    cut = ", truncated" if is_cut_short(path) else ""
    what = "normals" if facts.get("encoding", {}).get("code") == "normals" else "depth map"
    return f"{what} by depthcli, {form}{cut}"


# --- Words ------------------------------------------------------------------------------------------------------------


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _camera_line(camera: Optional[Mapping[str, Any]]) -> str:
    if camera is None:
        return ""
    numbers = ", ".join(f"{key} {camera[key]:.6g}" for key in ("fx", "fy", "cx", "cy"))
    lens, size = camera.get("distortion"), camera.get("size")
    parts = [f"{numbers} pixels ({camera['source']})"]
    if size:
        angles = (math.degrees(2 * math.atan(side / 2 / camera[f])) for side, f in zip(size, ("fx", "fy")))
        parts.append("{:.1f} x {:.1f} degrees".format(*angles))
    if lens:
        names = ("k1", "k2", "p1", "p2", "k3") if lens["model"] == LensModel.RADIAL.value else ("k1", "k2", "k3", "k4")
        terms = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, lens["coefficients"]))
        parts.append(f"{lens['model']} lens {terms}")
    return ", ".join(parts)
