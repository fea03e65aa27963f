"""Feed damaged files of every format to the command, and report what it should never do.

    python benchmarks/fuzz.py                              # 40 rounds of each format
    python benchmarks/fuzz.py --formats clips --rounds 500 --seed 7
    python benchmarks/fuzz.py --formats mkv --seed 7 --only 123 --keep findings   # one round again, its files kept

Each round takes a small file made by rule, changes some of its bytes, and runs the command on it in a child process. A
finding is a traceback, a crash, a hang, a Python warning, a failure without a message, more than 4 GB of memory, or
another depth map where a digest or checksum should have noticed. One line for each; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import threading
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 4 << 30  # bytes that a process may hold
SECONDS = 60  # of work in one round; four times that if it waits, as for a busy disk
SIZE = (40, 30)  # of the pictures: so small that many changes meet a header
RUN = ("--encoder", "tiny", *(ENGINE := ("--input-size", "28", "--backend", "torch", "-q")))
_NEVER = re.compile(r"Traceback \(most recent|^(?:\S+:\d+: )?\w*(?:Warning|Error): ", re.MULTILINE)
_OUT_OF_MEMORY = re.compile(r"ran out of memory|not enough memory")


@dataclasses.dataclass(frozen=True)
class Kind:
    """One format.

    make: writes a folder's files; `argv`, run in the folder, is the command. targets: patterns of the files of which
    one is damaged in each round. stdin: the file the command reads there. result: a depth map the command writes, which
    a damaged file that is accepted must not change. call: "module:function" to call with the target, for want of a
    command.
    """

    group: str
    make: Callable[[Path], None]
    argv: tuple[str, ...]
    targets: tuple[str, ...]
    stdin: str = ""
    result: str = ""
    call: str = ""


# --- What is damaged --------------------------------------------------------------------------------------------------


def scene(index: int = 0) -> Any:
    """Return (H, W, 3) uint8: a gradient, a square that moves, and some texture."""
    import numpy as np

    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([255 * x // width, 255 * y // height, (7 * x + 13 * y) % 97 + 60], -1).astype(np.uint8)
    rgb[8:18, 5 + index : 15 + index] = (230, 60, 20)
    return rgb


def picture(suffix: str, mode: str = "RGB", **options: Any) -> bytes:
    """Return a picture file. mode: of Pillow, of what it holds. options: of Pillow's `save`."""
    import numpy as np
    from PIL import Image

    if mode == "I;16":
        image = Image.fromarray(scene()[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(scene()).convert(mode)
    if options.pop("frames", False):
        options.update(save_all=True, append_images=[Image.fromarray(scene(i)).convert(mode) for i in (1, 2)])
    stream = io.BytesIO()
    if suffix == ".heic":
        import pillow_heif

        pillow_heif.from_pillow(image).save(stream)
        return stream.getvalue()
    format = {".jpg": "JPEG", ".tif": "TIFF", ".jp2": "JPEG2000", ".pgm": "PPM"}.get(suffix, suffix[1:])
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    if suffix in (".jpg", ".webp", ".avif"):
        options["exif"] = exif
    image.save(stream, format, **options)
    return stream.getvalue()


PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "jpg": (".jpg", {}),
    "jpg-progressive": (".jpg", {"progressive": True}),
    "jpg-cmyk": (".jpg", {"mode": "CMYK"}),
    "png": (".png", {}),
    "png-16": (".png", {"mode": "I;16"}),
    "png-palette": (".png", {"mode": "P"}),
    "apng": (".png", {"frames": True}),
    "tif": (".tif", {}),
    "tif-16": (".tif", {"mode": "I;16"}),
    "tif-lzw": (".tif", {"compression": "tiff_lzw"}),
    "tif-deflate": (".tif", {"compression": "tiff_adobe_deflate"}),
    "tif-jpeg": (".tif", {"compression": "jpeg"}),
    "webp": (".webp", {}),
    "webp-lossless": (".webp", {"lossless": True}),
    "webp-animated": (".webp", {"frames": True}),
    "gif": (".gif", {"mode": "P", "frames": True}),
    "bmp": (".bmp", {}),
    "ppm": (".ppm", {}),
    "pgm-16": (".pgm", {"mode": "I;16"}),
    "jp2": (".jp2", {}),
    "avif": (".avif", {}),
    "heic": (".heic", {}),
}


def _picture_kind(name: str) -> Kind:
    suffix, options = PICTURES[name]
    file = f"a{suffix}"

    def make(folder: Path) -> None:
        (folder / file).write_bytes(picture(suffix, **options))

    return Kind("pictures", make, ("image", file, "-o", "out/", "-f", "npz", *RUN), (file,))


def clip(path: Path, codec: str, pixels: str = "yuv420p", sound: str = "", format: str | None = None) -> None:
    """Write a clip of 8 frames."""
    from fractions import Fraction

    import av
    import numpy as np

    with av.open(str(path), "w", format=format) as out:
        stream = out.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixels
        audio = out.add_stream(sound, rate=48000) if sound else None
        for index in range(8):
            frame = av.VideoFrame.from_ndarray(scene(index), "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio is not None:
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
            tone.sample_rate, tone.pts = 48000, 0
            resampler = av.AudioResampler(format=audio.codec_context.format, layout="mono", rate=48000)
            for part in (*resampler.resample(tone), None):
                out.mux(audio.encode(part))


CLIPS: dict[str, dict[str, Any]] = {
    "mp4": {"codec": "libx264", "sound": "aac"},
    "mp4-mpeg4": {"codec": "mpeg4"},
    "mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "mkv": {"codec": "libx264", "sound": "aac"},
    "mkv-ffv1": {"codec": "ffv1"},
    "webm": {"codec": "libvpx-vp9"},
    "webm-av1": {"codec": "libsvtav1"},
    "avi": {"codec": "mpeg4"},
    "ts": {"codec": "libx264"},
    "mpg": {"codec": "mpeg2video"},
    "flv": {"codec": "flv"},
    "y4m": {"codec": "wrapped_avframe", "format": "yuv4mpegpipe"},
}


def _clip_kind(name: str) -> Kind:
    file = "a." + name.partition("-")[0]
    run = ("-f", "npz,mp4", "--steady", "off", *RUN)
    if name == "y4m":
        return Kind(
            "clips",
            lambda folder: clip(folder / file, **CLIPS[name]),
            ("video", "-", "-o", "out/", *run),
            (file,),
            file,
        )
    return Kind(
        "clips", lambda folder: clip(folder / file, **CLIPS[name]), ("video", file, "-o", "out/", *run), (file,)
    )


def _animation(folder: Path) -> None:
    (folder / "a.gif").write_bytes(picture(".gif", "P", frames=True))


def depth_map() -> Any:
    import numpy as np

    from depthcli.depthmap import DepthKind, DepthMap, Provenance

    width, height = SIZE
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return DepthMap(1 + x / width + y / height, DepthKind.RELATIVE_DISPARITY, Provenance("tiny", "a model"))


def depth_file(name: str) -> bytes:
    """Return the depth map as a file of that name."""
    import numpy as np

    from depthcli.io.codecs.files import write_still
    from depthcli.io.codecs.formats import STILLS

    depth, stream = depth_map(), io.BytesIO()
    implied = STILLS["exr"] if name.endswith(".exr") else None
    row = next((row for row in STILLS.values() if name.endswith(row.still)), implied)
    if row:
        write_still(row, depth, stream)
    elif name.endswith(".npy"):
        np.save(stream, depth.values)
    else:
        stream.write(b"Pf\n%d %d\n-1.0\n" % depth.size + depth.values[::-1].astype("<f4").tobytes())
    return stream.getvalue()


DEPTH_FILES = ("a_depth.npz", "a_depth_gray.png", "a_depth.png", "a_depth.npy", "a_depth.pfm")


def _depth_kind(file: str, as_truth: bool) -> Kind:
    format = "disparity" if file.endswith((".npy", ".pfm")) else "depthcli"
    kind = ("--prediction-kind", "relative_disparity") if file.endswith((".npy", ".pfm")) and not as_truth else ()

    def make(folder: Path) -> None:
        (folder / "a.png").write_bytes(picture(".png"))
        (folder / "maps").mkdir()
        (folder / "maps" / file).write_bytes(depth_file(file))
        (folder / "truth.npy").write_bytes(depth_file("truth.npy"))
        truth = f"maps/{file}" if as_truth else "truth.npy"
        entry = {"picture": "a.png", "truth": truth, "format": format if as_truth else "disparity"}
        (folder / "list.json").write_text(json.dumps([entry]))

    model = RUN[:-1] if as_truth else ("--predictions", "maps", *kind)  # eval has no -q
    return Kind("depth files", make, ("eval", "list.json", "--json", "-", *model), (f"maps/{file}",))


def metric_map() -> Any:
    """Return a map in metres with a hole and a camera."""
    import numpy as np

    from depthcli.camera import CameraSource, pinhole
    from depthcli.depthmap import DepthKind, DepthMap, Provenance

    values, valid = depth_map().values, np.ones(SIZE[::-1], bool)
    valid[3:6, 4:9] = False
    camera = pinhole(SIZE, 35.0, CameraSource.GIVEN)
    return DepthMap(values, DepthKind.METRIC_DEPTH, Provenance("tiny", source="a.jpg"), valid=valid, camera=camera)


# What other programs write, by the name of its file and what the user says of it.
STRANGERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mm": ("a.png", ("--from", "mm")),
    "sun": ("a.png", ("--from", "sun")),
    "moge": ("a.png", ("--from", "moge", "--kind", "metric_depth")),
    "splats": ("scene/depths/a.png", ("--from", "3dgs")),
    "vda": ("a.npz", ("--from", "vda", "--kind", "relative_disparity")),
    "da3": ("a.npz", ("--from", "da3", "--kind", "metric_depth")),
    "npy": ("a.npy", ("--kind", "metric_depth")),
    "pfm": ("a.pfm", ("--kind", "metric_depth")),
    "tiff": ("a.tiff", ("--kind", "metric_depth")),
    "exr": ("a.exr", ("--kind", "metric_depth")),
    "gdepth": ("a.jpg", ()),
    "dynamic": ("a.jpg", ()),
}


def stranger(name: str) -> bytes:
    """Return a depth file of another program."""
    import base64

    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from depthcli.io.codecs.exr import write_exr

    file, stream, values = STRANGERS[name][0], io.BytesIO(), depth_map().values
    codes = np.round(values * 1000).astype(np.uint16)
    if name in ("mm", "sun", "moge", "splats"):
        texts = PngInfo()
        for key, text in (("near", "1.5"), ("far", "8.25")) if name == "moge" else ():
            texts.add_text(key, text)
        Image.fromarray(codes).save(stream, "PNG", pnginfo=texts)
    elif file.endswith(".npz"):
        more = {"intrinsics": np.diag([35, 35, 1])[None], "conf": values} if name == "da3" else {}
        np.savez(stream, **{"depth" if name == "da3" else "depths": np.stack([values, values]), **more})
    elif file.endswith(".exr"):
        write_exr(values, stream, {})
        return stream.getvalue().replace(b"depthcli", b"stranger")
    elif file.endswith(".tiff"):
        Image.fromarray(values).save(stream, "TIFF", compression="tiff_adobe_deflate")
    elif file.endswith(".jpg"):
        Image.fromarray(codes).save(stream, "PNG")
        image, photo = stream.getvalue(), picture(".jpg")
        facts = 'Format="RangeInverse" {0}:Near="0.5" {0}:Far="8" {0}:Units="'
        if name == "gdepth":
            about = "GDepth:" + facts.format("GDepth") + f'm" GDepth:Data="{base64.b64encode(image).decode()}"'
        else:
            items = f'<i Item:DataURI="p" Item:Length="0"/><i Item:DataURI="d" Item:Length="{len(image)}"/>'
            about = "DepthMap:" + facts.format("DepthMap") + f'Meters" DepthMap:DepthURI="d">{items}</a'
        body = b"http://ns.adobe.com/xap/1.0/\0" + f"<a {about}>".encode()
        head = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big")
        return photo[:2] + head + body + photo[2:] + (image if name == "dynamic" else b"")
    else:
        return depth_file(file)
    return stream.getvalue()


def _stranger_kind(name: str) -> Kind:
    file, options = STRANGERS[name]
    targets = (file,)

    def make(folder: Path) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(stranger(name))
        if name == "splats":
            (folder / "scene/sparse/0").mkdir(parents=True)
            (folder / "scene/sparse/0/depth_params.json").write_text('{"a": {"scale": 0.75, "offset": 0.01}}')

    if name == "splats":
        targets = (file, "scene/sparse/0/*.json")
    return Kind("depth files", make, ("convert", file, *options, "-f", "exr,npy", "-o", "out/"), targets)


FORMATS = ("exr", "far0", "tiff", "pfm", "npy", "npz", "mm", "kitti", "tum", "sun", "white", "black", "controlnet")


def _format_kind(name: str) -> Kind:
    from depthcli.io.codecs.formats import STILLS

    file = f"a{STILLS[name].suffix}"

    def make(folder: Path) -> None:
        from depthcli.io.codecs.files import write_file

        write_file(STILLS[name], metric_map(), folder / file)

    return Kind("formats", make, ("convert", file, "-f", "npz", "-o", "out/"), ("a.*",))


def _film(folder: Path) -> None:
    _made(("video", "a.mp4", "-o", "./", "-f", "ffv1", "--steady", "off", *RUN), "a.mp4")(folder)


SHAPES = ("ply", "pcd", "glb", "obj", "usdz", "html", "gaussians.ply")


def _shape_kind(name: str) -> Kind:
    file = "a." + name.rpartition(".")[2]

    def make(folder: Path) -> None:
        import numpy as np

        from depthcli.io.codecs.files import write_file
        from depthcli.io.codecs.formats import STILLS

        if name == "gaussians.ply":
            names = (
                "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
            ).split()
            head = ["ply", "format binary_little_endian 1.0", "element vertex 9"]
            head += [*(f"property float {each}" for each in names), "end_header", ""]
            rows = np.random.default_rng(0).normal(size=(9, len(names))).astype("<f4")
            (folder / file).write_bytes("\n".join(head).encode() + rows.tobytes())
        else:
            write_file(STILLS[name], metric_map(), folder / file)

    return Kind("shapes", make, ("info", file), ("a*",))


# Calibrations by the names of their files.
CAMERAS = {
    "opencv.yaml": "%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n"
    "   data: [ 35., 0., 20., 0., 35., 15., 0., 0., 1. ]\n",
    "ros.yaml": "image_width: 40\nimage_height: 30\ncamera_matrix:\n  rows: 3\n  cols: 3\n"
    "  data: [35, 0, 20, 0, 35, 15, 0, 0, 1]\ndistortion_model: plumb_bob\n"
    "distortion_coefficients:\n  rows: 1\n  cols: 5\n  data: [0.1, 0, 0, 0, 0]\n",
    "transforms.json": '{"fl_x": 35, "cx": 20, "cy": 15, "w": 40, "h": 30, "k1": 0.1, "frames": [{"file_path": "a.png",'
    ' "transform_matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]}]}',
    "open3d.json": '{"width": 40, "height": 30, "intrinsic_matrix": [35, 0, 0, 0, 35, 0, 20, 15, 1]}',
    "calib.txt": "P2: 35 0 20 0 0 35 15 0 0 0 1 0\nP3: 35 0 20 -9 0 35 15 0 0 0 1 0\n",
    "K.txt": "35 0 20\n0 35 15\n0 0 1\n",
    "cameras.txt": "1 OPENCV 40 30 35 35 20 15 0.1 0 0 0\n",
}


def _camera_kind(name: str) -> Kind:
    def make(folder: Path) -> None:
        (folder / name).write_text(CAMERAS[name])
        (folder / "a.npy").write_bytes(depth_file("a.npy"))

    argv = ("convert", "a.npy", "--kind", "metric_depth", "--intrinsics", name, "-f", "ply", "-o", "out/")
    return Kind("cameras", make, argv, (name,))


def _colmap_kind(suffix: str) -> Kind:
    """Return the kind of a whole model, whose points a map is fitted to."""

    def make(folder: Path) -> None:
        import numpy as np

        from depthcli.io.codecs.files import write_depth
        from depthcli.io.scenes.colmap import ColmapModel, write_colmap

        rng, count = np.random.default_rng(0), 20
        places = np.stack([rng.uniform(1, 38, count), rng.uniform(1, 28, count)], axis=1)
        z = 1 / (0.5 * depth_map().values[places[:, 1].astype(int), places[:, 0].astype(int)])
        model = ColmapModel(
            names=("a.png",),
            sizes=np.array([SIZE]),
            pinholes=np.array([[35.0, 35.0, 20.0, 15.0]]),
            extrinsics=np.eye(4)[None, :3],
            points=np.concatenate([(places - (20, 15)) / 35 * z[:, None], z[:, None]], axis=1),
            colors=np.zeros((count, 3), np.uint8),
            errors=np.zeros(count),
            places=(places,),
            seen=(np.arange(count),),
            tracks=np.stack([np.arange(count), np.zeros(count, int), np.arange(count)], axis=1),
        )
        write_depth(depth_map(), folder / "a.npz")
        write_colmap(model, folder / "model", suffix)

    argv = ("convert", "a.npz", "--preset", "3dgs", "--intrinsics", "model", "-o", "out")
    return Kind("cameras", make, argv, ("model/*",))


def _references(folder: Path) -> None:
    from depthcli.io.codecs.files import write_depth

    write_depth(depth_map(), folder / "a.npz")
    (folder / "points.csv").write_text("u,v,z\n3,4,1.5\n20,10,1\n30,25,0.7\n")


def _exr(folder: Path) -> None:
    (folder / "a.exr").write_bytes(depth_file("a.exr"))


def list_text(suffix: str) -> str:
    """Return a list for `depth eval` (.json, .csv) or `depth image` (.txt)."""
    if suffix == ".txt":
        return "\ufeffa.png\n\n./a.png\r\n"
    rows = [
        {"picture": "a.png", "truth": "truth.npy", "format": "disparity", "crop": [1, 1, 29, 39], "invalid": [0, 99.5]},
        {"picture": "a.png", "name": "b", "pairs": [[[1, 2], [20, 30]], [[5, 5], [9, 9]]]},
    ]
    if suffix == ".json":
        return json.dumps(rows, indent=1)
    return "picture,truth,format,crop,scale\n" + 'a.png,truth.npy,disparity,"[1, 1, 29, 39]",2\n'


def _list_kind(suffix: str) -> Kind:
    file = f"list{suffix}"

    def make(folder: Path) -> None:
        (folder / "a.png").write_bytes(picture(".png"))
        (folder / "truth.npy").write_bytes(depth_file("truth.npy"))
        (folder / file).write_text(list_text(suffix))

    run = ("image", file, "-o", "out/", *RUN) if suffix == ".txt" else ("eval", file, "--json", "-", *RUN[:-1])
    return Kind("lists", make, run, (file,))


def _made(argv: Sequence[str], *names: str) -> Callable[[Path], None]:
    """Return a maker of a folder in which the command ran over some pictures or a clip."""

    def make(folder: Path) -> None:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".mp4":
                clip(path, "libx264")
            else:
                path.write_bytes(picture(path.suffix))
        command(argv)

    return make


VIDEO = ("video", "a.mp4", "-o", "out/", "-f", "npz", "--steady", "on", *RUN)


def _spool(folder: Path, ended: bool = False) -> None:
    """Leave what a run that was ended between two frames leaves: a shard for each of some frames, and a state.

    ended: it was ended later, while it wrote the results.
    """
    from depthcli.io.video import spool

    most, remove = spool._MOST_BYTES, spool.Spool.remove
    spool._MOST_BYTES, spool.Spool.remove = 1, lambda self: None  # type: ignore[method-assign]
    try:
        _made(VIDEO, "a.mp4")(folder)
    finally:
        spool._MOST_BYTES, spool.Spool.remove = most, remove  # type: ignore[method-assign]
    (left,) = (folder / "out").glob(".*-spool")
    shutil.copytree(left, folder / left.name)
    shutil.rmtree(folder / "out")
    (folder / "out").mkdir()
    (folder / left.name).rename(left)
    if ended:
        return
    (left / "end.json").unlink()
    (left / "writing.json").unlink()
    sorted(left.glob("shard_*"))[-1].unlink()


def _weights(folder: Path) -> None:
    (folder / "a.png").write_bytes(picture(".png"))
    shutil.copy(ROOT / "depthcli/assets/tiny.safetensors", folder / "mine.safetensors")


def _pickle(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    (folder / "a.png").write_bytes(picture(".png"))
    torch.save(load_file(str(ROOT / "depthcli/assets/tiny.safetensors")), folder / "mine.pth")


def _compiled(folder: Path) -> None:
    (folder / "a.png").write_bytes(picture(".png"))
    command(("compile", "--target", "torchscript", "--encoder", "tiny", "--size", "28x42", "-o", "nets/"))


IMAGE = ("image", "a.png", "-o", "out/", "-f", "npz")
OF_A_PICTURE, OF_A_CLIP = "out/a_depth.npz", "out/a_depth_npz/*"
_CHECKPOINT = ("--trust-checkpoint", "--checkpoint")


def _cached(engine: str) -> Kind:
    argv = (*IMAGE, "--encoder", "tiny", "--input-size", "28", "--backend", engine, "-q")

    def make(folder: Path) -> None:
        _made(argv, "a.png")(folder)
        shutil.rmtree(folder / "out")

    return Kind("networks", make, argv, ("cache/*/*",), result=OF_A_PICTURE)


KINDS: dict[str, Kind] = {
    **{name: _picture_kind(name) for name in PICTURES},
    **{name: _clip_kind(name) for name in CLIPS},
    "gif-clip": Kind("clips", _animation, ("video", "a.gif", *VIDEO[2:]), ("a.gif",)),
    **{f"{file[1:]}-prediction": _depth_kind(file, as_truth=False) for file in DEPTH_FILES},
    **{f"{file[1:]}-truth": _depth_kind(file, as_truth=True) for file in DEPTH_FILES},
    "exr": Kind("depth files", _exr, (), ("a.exr",), call="depthcli.io.codecs.exr:read_exr"),
    **{f"from-{name}": _stranger_kind(name) for name in STRANGERS},
    **{f"format-{name}": _format_kind(name) for name in FORMATS},
    "film": Kind("formats", _film, ("convert", "a_depth.mkv", "-f", "npy", "-o", "out/"), ("a_depth*",)),
    **{f"shape-{name}": _shape_kind(name) for name in SHAPES},
    **{f"camera-{name}": _camera_kind(name) for name in CAMERAS},
    **{f"colmap{suffix}": _colmap_kind(suffix) for suffix in (".bin", ".txt")},
    "references": Kind(
        "cameras",
        _references,
        ("convert", "a.npz", "--scale-from", "points.csv", "-f", "npy", "-o", "out/"),
        ("points.csv",),
    ),
    **{f"list{suffix}": _list_kind(suffix) for suffix in (".txt", ".json", ".csv")},
    "manifest": Kind(
        "records",
        _made(("dir", "in", "-o", "out", *RUN), "in/a.png", "in/b.jpg"),
        ("dir", "in", "-o", "out", *RUN),
        ("out/manifest.jsonl",),
    ),
    "sidecar": Kind("records", _made(VIDEO, "a.mp4"), VIDEO, ("out/*.json",), result=OF_A_CLIP),
    "spool-ended": Kind(
        "records",
        lambda folder: _spool(folder, ended=True),
        VIDEO,
        ("out/.*-spool/*[!k]",),
        result=OF_A_CLIP,
    ),
    "spool": Kind("records", _spool, VIDEO, ("out/.*-spool/*[!k]",), result=OF_A_CLIP),  # all but the lock
    "safetensors": Kind(
        "networks",
        _weights,
        (*IMAGE, *_CHECKPOINT, "mine.safetensors", *ENGINE),
        ("mine.safetensors",),
        result=OF_A_PICTURE,
    ),
    "pth": Kind("networks", _pickle, (*IMAGE, *_CHECKPOINT, "mine.pth", *ENGINE), ("mine.pth",), result=OF_A_PICTURE),
    "torchscript": Kind(
        "networks",
        _compiled,
        (*IMAGE, "--backend", "torchscript", "--artifacts", "nets", "--input-size", "28", "-q"),
        ("nets/*",),
        result=OF_A_PICTURE,
    ),
    "openvino-cache": _cached("openvino"),
    "onnx-cache": _cached("onnx"),
}


# --- The damage -------------------------------------------------------------------------------------------------------


def mutate(data: bytes, rng: random.Random, repair: bool = True) -> bytes:
    """Return the bytes with some of them changed.

    repair: give half of the PNG and ZIP files check sums that are right again, so that more than the sums is tried.
    """
    if not data:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(9)))
    repaired = rng.random() < 0.5 and repair
    if repaired and data.startswith(b"PK\x03\x04"):
        return _in_zip(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_CHANGES)(data, rng)
    return _png_sums(data) if repaired and data.startswith(b"\x89PNG\r\n\x1a\n") else data


def _place(data: bytes, rng: random.Random) -> int:
    """Return a position: near the beginning, near the end, or anywhere."""
    near = min(len(data), rng.choice((32, 512)))
    return (
        rng.choice((rng.randrange(near), len(data) - 1 - rng.randrange(near), rng.randrange(len(data)))) if data else 0
    )


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        changed[_place(data, rng)] ^= rng.choice((1 << rng.randrange(8), rng.randrange(1, 256)))
    return bytes(changed)


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    extremes = (b"\0", b"\xff", b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"9999", b"-1", b"\0\1", b"e")
    new = rng.choice((rng.choice(extremes), rng.choice(extremes) * rng.randrange(1, 9), rng.randbytes(4)))
    return data[:start] + new + data[start + len(new) :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _drop(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    return data[:start] + data[start + rng.choice((1, 2, 4, 16, 200)) :]


def _double(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    end = start + rng.choice((1, 4, 16, 200, 2000))
    return data[:end] + data[start:end] * rng.choice((1, 1, 50)) + data[end:]


def _move(data: bytes, rng: random.Random) -> bytes:
    start, to, length = _place(data, rng), _place(data, rng), rng.choice((1, 4, 16, 200))
    part = data[start : start + length]
    return data[:to] + part + data[to + len(part) :]


_CHANGES = (_flip, _flip, _flip, _overwrite, _overwrite, _cut, _drop, _double, _move)


def _png_sums(data: bytes) -> bytes:
    out, position = data[:8], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        body = data[position + 4 : position + 8 + length]
        out += data[position : position + 4] + body + struct.pack(">I", zlib.crc32(body))
        position += 12 + length
    return out + data[position:]


def _in_zip(data: bytes, rng: random.Random) -> bytes:
    """Return the archive with one of its files damaged, and its check sum right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, mutate(content, rng) if name == chosen else content)
    return stream.getvalue()


def source_of(seed: int, name: str, number: int) -> random.Random:
    """Return the random numbers of one round."""
    return random.Random(f"{seed}:{name}:{number}")


# --- The child --------------------------------------------------------------------------------------------------------


def command(argv: Sequence[str]) -> int:
    """Run the command `depth` here and return its exit code; raises what escapes it."""
    from depthcli.cli import app

    sys.argv = ["depth", *argv]
    try:
        app.run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _serve(pipe: Any) -> None:
    """Take (what to do, its kind, a folder), and send ("", exit code) or (traceback, None)."""
    import importlib

    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(1)
    os.environ.update(NO_COLOR="1", HF_HUB_OFFLINE="1")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            task, name, folder = pipe.recv()
        except EOFError:
            return
        kind = KINDS[name]
        os.chdir(folder)
        os.environ["DEPTHCLI_CACHE"] = str(folder / "cache")
        with (
            open("log", "ab", 0) as log,
            open(kind.stdin or os.devnull, "rb") if task == "run" else open(os.devnull) as given,
        ):
            os.dup2(given.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.stdin = open(0, closefd=False)
        try:
            if task == "make":
                kind.make(folder)
                code = 0
            elif kind.call:
                code = _call(importlib.import_module, kind)
            else:
                code = command(kind.argv)
            answer = "", code
        except BaseException:
            answer = traceback.format_exc(), None
        sys.stdout.flush()
        sys.stderr.flush()
        pipe.send(answer)


def _call(load: Callable[[str], Any], kind: Kind) -> int:
    from depthcli.errors import DepthError

    module, _, function = kind.call.partition(":")
    try:
        getattr(load(module), function)(Path(kind.targets[0]))
    except DepthError as error:
        print(f"error: {error}")
        return error.exit_code
    return 0


# --- The parent -------------------------------------------------------------------------------------------------------


class Child:
    """A process that runs one command after another, and is replaced after a crash or a hang."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, task: str, name: str, folder: Path) -> tuple[str, int | None]:
        """Return what went wrong, or "" and the exit code."""
        self._pipe.send((task, name, folder))
        started, (_, worked) = time.monotonic(), self._used()
        try:
            while not self._pipe.poll(0.02):
                memory, seconds = self._used()
                if memory > MEMORY:
                    return self._ended(f"memory: more than {MEMORY >> 30} GB"), None
                if seconds - worked > SECONDS or time.monotonic() - started > 4 * SECONDS:
                    return self._ended(f"hang: more than {SECONDS} s"), None
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            return self._ended(f"crash: the process ended with {self._process.exitcode}"), None

    def _ended(self, problem: str) -> str:
        """Put a new process in the place of this one."""
        self._process.kill()
        self._process.join()
        self._start()
        return problem

    def _used(self) -> tuple[int, float]:
        """Return the bytes that the process holds and the seconds that it has computed; 0 once it has ended."""
        try:
            facts = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0, 0.0
        ticks = int(facts[11]) + int(facts[12])
        return int(facts[21]) * resource.getpagesize(), ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)


@dataclasses.dataclass
class Seed:
    """A kind's folder, made once. answer: what the command makes of it undamaged, if that has to stay."""

    folder: Path
    problem: str
    answer: Any


class Worker:
    """Rounds in one child, each in a folder of the same path, since results name the place of their clip.

    results: outcomes counted by format. findings: (format, round, what).
    """

    def __init__(self, place: Path, seed: int, keep: Path | None) -> None:
        place.mkdir()
        self._place, self._case, self._seed, self._keep = place, place / "case", seed, keep
        self._seeds: dict[str, Seed] = {}
        self._child = Child()
        self.results: Counter[tuple[str, str]] = Counter()
        self.findings: list[tuple[str, int, str]] = []

    def round(self, name: str, number: int) -> None:
        """Damage a file of a format, run the command, and print what it should not have done."""
        if name not in self._seeds:
            self._seeds[name] = self._made(name)
            if self._seeds[name].problem:
                print(f"{name}: cannot be made here: {self._seeds[name].problem}", flush=True)
        seed = self._seeds[name]
        if seed.problem:
            self.results[name, "not made"] += 1
            return
        self._fill_case(seed.folder)
        target = self._damage(self._case, name, number)
        found, outcome = judge(self._child.run("run", name, self._case), self._case, KINDS[name], seed)
        self.results[name, outcome] += 1
        if found:
            self.findings.append((name, number, found))
            print(f"{name} --seed {self._seed} --only {number} ({target}): {found}", flush=True)
            if self._keep:
                shutil.copytree(self._case, self._keep / f"{name}-{self._seed}-{number}", dirs_exist_ok=True)

    def close(self) -> None:
        self._child.close()

    def _fill_case(self, source: Path | None) -> None:
        shutil.rmtree(self._case, ignore_errors=True)
        if source is None:
            self._case.mkdir()
        else:
            shutil.copytree(source, self._case)

    def _made(self, name: str) -> Seed:
        kind, folder = KINDS[name], self._place / f"seed-{name}"
        self._fill_case(None)
        problem, _ = self._child.run("make", name, self._case)
        if problem:
            return Seed(folder, problem.strip().splitlines()[-1], None)
        (self._case / "log").unlink()
        shutil.copytree(self._case, folder)
        problem, code = self._child.run("run", name, self._case)
        said = (self._case / "log").read_text(errors="replace").strip()
        if problem or code != 0:
            return Seed(folder, f"undamaged: {(problem or said).strip().splitlines()[-1]}", None)
        return Seed(folder, "", _maps(self._case, kind) if kind.result else None)

    def _damage(self, folder: Path, name: str, number: int) -> str:
        rng = source_of(self._seed, name, number)
        files = sorted(path for pattern in KINDS[name].targets for path in folder.glob(pattern) if path.is_file())
        path = rng.choice(files)
        path.write_bytes(mutate(path.read_bytes(), rng, repair=not KINDS[name].result))
        return path.relative_to(folder).as_posix()


def judge(answer: tuple[str, int | None], folder: Path, kind: Kind, seed: Seed) -> tuple[str, str]:
    """Return the finding, or "", and what became of the file in a word."""
    problem, code = answer
    log = (folder / "log").read_text(errors="replace") if (folder / "log").exists() else ""
    if problem:
        lines = problem.strip().splitlines()
        place = next((line.strip() for line in reversed(lines) if "depthcli/" in line), "")
        return f"{lines[-1]} {place}".strip(), problem.partition(":")[0] if code else "stopped"
    if _OUT_OF_MEMORY.search(log):
        return f"more than {MEMORY >> 30} GB: {log.strip().splitlines()[-1]}", "memory"
    never = _NEVER.search(log)
    if never:
        line = next(line for line in log[never.start() :].splitlines() if line)
        return f"printed: {line}", "noise"
    if code not in (0, 1, 2, 3, 4, 5):
        return f"exit code {code}", "refused"
    if code and not log.strip():
        return f"exit code {code} without a message", "refused"
    if code == 0 and seed.answer is not None:
        import numpy as np

        maps = _maps(folder, kind)
        same_weights = {facts for _, facts in maps} == {facts for _, facts in seed.answer}
        alike = len(maps) == len(seed.answer) and all(
            a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4 * np.ptp(b))
            for (a, _), (b, _) in zip(maps, seed.answer)
        )
        if same_weights and not alike:
            return "another depth map, without an error", "accepted"
    return "", "accepted" if code == 0 else "refused"


def _maps(folder: Path, kind: Kind) -> list[tuple[Any, str]]:
    """Return the depth maps of a folder, with the digest of the weights that each of them names."""
    import numpy as np

    found = []
    for path in sorted(folder.glob(kind.result)):
        with np.load(path) as arrays:
            found.append((arrays["depth"], json.loads(str(arrays["meta"]))["weights_sha256"]))
    return found


def rounds_of(names: Sequence[str], count: int) -> Iterator[tuple[str, int]]:
    """Yield all rounds, each format in its turn."""
    for number in range(count):
        for name in names:
            yield name, number


def chosen(words: str) -> list[str]:
    """Return the formats that words name: a format, a group, or all."""
    groups = sorted({kind.group for kind in KINDS.values()})
    names: list[str] = []
    for word in words.split(","):
        if word != "all" and word not in KINDS and word not in groups:
            raise SystemExit(f"no format is called {word!r}: choose from all, {', '.join((*groups, *KINDS))}")
        names += [name for name, kind in KINDS.items() if word in ("all", name, kind.group)]
    return list(dict.fromkeys(names))


def main() -> int:
    parser = argparse.ArgumentParser(description="Feed damaged files of every format to the command `depth`.")
    parser.add_argument("--formats", default="all", help="formats or groups, separated by commas")
    parser.add_argument("--rounds", type=int, default=40, help="damaged files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this round alone")
    parser.add_argument("--children", type=int, default=2, help="processes at once")
    parser.add_argument("--keep", type=Path, help="folder for the files of findings")
    given = parser.parse_args()
    names = chosen(given.formats)
    todo = ((name, given.only) for name in names) if given.only is not None else rounds_of(names, given.rounds)
    lock = threading.Lock()

    def work(worker: Worker) -> None:
        while True:
            with lock:
                item = next(todo, None)
            if item is None:
                break
            worker.round(*item)
        worker.close()

    with tempfile.TemporaryDirectory(prefix="depthcli-fuzz-") as place:
        workers = [Worker(Path(place) / str(number), given.seed, given.keep) for number in range(given.children)]
        threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    results = sum((worker.results for worker in workers), Counter())
    findings = sum(len(worker.findings) for worker in workers)
    for name in names:
        counts = {outcome: count for (format, outcome), count in sorted(results.items()) if format == name}
        print(f"{name:26}", "  ".join(f"{outcome} {count}" for outcome, count in counts.items()))
    print(f"{findings} findings in {sum(results.values())} rounds, seed {given.seed}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
