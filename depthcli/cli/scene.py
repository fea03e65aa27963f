"""`depth scene`: the pictures of one place to depth, cameras and points that belong together."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from collections.abc import Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from depthcli.choices.clips import FramesChoice
from depthcli.choices.model import ModelChoice
from depthcli.choices.scenes import MIXED, REFERENCES, RESIZES, ChunksChoice, SceneChoice, ViewsChoice
from depthcli.cli.groups import ADVANCED, CLIP, MODEL, SPACE, VIEWS, flag, grouped, option
from depthcli.cli.options import (
    BackendOptions,
    Edges,
    IfExists,
    ModelOptions,
    ReportOptions,
    ServerOptions,
    edges_of,
    points_of,
)
from depthcli.errors import UsageError
from depthcli.io.codecs.formats import STILLS
from depthcli.jobs.parsing import parse_list

if TYPE_CHECKING:
    from depthcli.jobs.remote_scene import RemoteScenes
    from depthcli.jobs.scene import Event, SceneJob
    from depthcli.jobs.scene_inputs import SceneInput
    from depthcli.predict.scene import SceneEstimator

# Names for the shell to complete, written out because their own modules load NumPy.
FORMATS = (
    *("npz", "mini_npz", "glb", "glb-mesh", "ply", "colmap", "colmap-txt", "transforms", "cameras", "poses"),
    *("depth_vis", "html"),
    "gs_ply",
    "feat_vis",
)
DEFAULT_FORMATS = ("npz", "glb", "depth_vis")
FORMATS_OF_CHUNKS = ("poses", "glb", "ply")
LEFT_OUT = ("encoder", "metric", "max_depth", "calibration", "artifacts", "shape_policy", "allow_standin")


@dataclass(frozen=True)
class ViewsOptions:
    """How the views go through the network."""

    poses: Annotated[
        Optional[Path],
        option(
            "Known cameras: COLMAP, transforms.json, cameras.json, NPZ; or poses: TUM, KITTI. Default: the folder's.",
            panel=VIEWS,
            metavar="PATH",
        ),
    ] = None
    model_folder: Annotated[
        str, option("COLMAP's model: its folder below sparse/. Default: 0.", panel=VIEWS, metavar="NAME")
    ] = ""
    align_to_input_scale: Annotated[
        Optional[bool],
        option(
            "With known cameras: keep their world, and fit depth to it, or move them to the network's. Default: keep.",
            "--align-to-input-scale/--no-align-to-input-scale",
            panel=VIEWS,
            metavar="",
        ),
    ] = None
    metres: Annotated[
        bool, flag("Depth and places in metres, by a second network, da3-metric.", "--metres", panel=VIEWS)
    ] = False
    max_views: Annotated[Optional[int], option("Take at most N views, evenly spread.", panel=VIEWS, metavar="N")] = None
    chunk: Annotated[
        Optional[int],
        option("More views than fit: N at a time, fitted to each other; 60 is usual.", panel=VIEWS, metavar="N"),
    ] = None
    overlap: Annotated[
        Optional[int],
        option("Views that a chunk shares with the one before. Default: half of --chunk.", panel=ADVANCED, metavar="N"),
    ] = None
    loops: Annotated[
        bool,
        option(
            "With --chunk: close the path where a place is seen again, or not.",
            "--loops/--no-loops",
            panel=ADVANCED,
            metavar="",
        ),
    ] = True
    mixed: Annotated[
        str,
        option(
            "Pictures of several sizes: pad to the largest, or cut to the smallest.",
            panel=VIEWS,
            metavar="CHOICE",
            values=MIXED,
            show_default=True,
        ),
    ] = "pad"
    ray_pose: Annotated[
        bool, flag("Cameras from the network's rays: more accurate, slower.", "--ray-pose", panel=VIEWS)
    ] = False
    seed: Annotated[int, option("Of the samples of --ray-pose. Default: 0.", panel=ADVANCED, metavar="N")] = 0
    reference: Annotated[
        str,
        option(
            "How the reference view is chosen: saddle_balanced, saddle_sim_range, first, middle.",
            panel=ADVANCED,
            metavar="CHOICE",
            values=REFERENCES,
        ),
    ] = "saddle_balanced"
    input_size: Annotated[
        Optional[int], option("Longer side of the network input. Default: 504.", panel=MODEL, metavar="PIXELS")
    ] = None
    resize: Annotated[
        str,
        option(
            "As process_res_method of Depth Anything 3. Default: upper_bound_resize.",
            panel=ADVANCED,
            metavar="NAME",
            values=RESIZES,
        ),
    ] = "upper_bound_resize"

    def choice(self) -> ViewsChoice:
        """Return the choice."""
        names = ViewsChoice.__dataclass_fields__
        return ViewsChoice(**{name: value for name, value in vars(self).items() if name in names})


@dataclass(frozen=True)
class FrameOptions:
    """Which frames of a clip are views."""

    fps: Annotated[
        Optional[float], option("Frames of each second that become views. Default: 1.", panel=CLIP, metavar="RATE")
    ] = None
    stride: Annotated[Optional[int], option("Every Nth frame.", panel=CLIP, metavar="N")] = None
    frames: Annotated[Optional[int], option("N frames in all, evenly.", panel=CLIP, metavar="N")] = None
    motion: Annotated[
        Optional[float],
        option("A frame whenever the picture moved by this part of its diagonal, as 0.1.", panel=CLIP, metavar="PART"),
    ] = None
    sharp: Annotated[bool, flag("With --frames and --motion: the sharpest frames near by.", "--sharp", panel=CLIP)] = (
        False
    )

    def choice(self) -> FramesChoice:
        """Return the choice."""
        return FramesChoice(**vars(self))


@dataclass(frozen=True)
class SceneShapeOptions:
    """How the views become points and meshes. Texts, as a number or a word may stand there."""

    confidence: Annotated[
        float, option("Leave out the least sure pixels, in percent.", panel=SPACE, metavar="PERCENT", show_default=True)
    ] = 40.0
    edges: Edges = "0.04"
    points: Annotated[
        str, option("Most points in glb and ply, or all.", panel=SPACE, metavar="N", show_default=True)
    ] = "1000000"
    sparse_points: Annotated[
        str, option("Most points in a COLMAP model, or all.", panel=SPACE, metavar="N", show_default=True)
    ] = "100000"
    mesh_size: Annotated[
        int, option("Most vertices along the longer side of a mesh.", panel=SPACE, metavar="N", show_default=True)
    ] = 256
    show_cameras: Annotated[
        bool,
        option("Show in glb where the views were taken.", "--show-cameras/--no-show-cameras", panel=SPACE, metavar=""),
    ] = True

    def choice(self) -> SceneChoice:
        """Return the choice."""
        points, sparse = points_of(self.points), points_of(self.sparse_points, "sparse_points")
        return SceneChoice(self.confidence, edges_of(self.edges), points, sparse, self.mesh_size, self.show_cameras)


@dataclass(frozen=True)
class SceneOptions:
    """All options of a scene."""

    formats: Annotated[
        Optional[list[str]],
        option(
            f"{', '.join(FORMATS)}; depth-exr, depth-npz ...: a file per view (docs/scenes.md). "
            f"Default: {','.join(DEFAULT_FORMATS)}; with --chunk {','.join(FORMATS_OF_CHUNKS)}.",
            "--format",
            "-f",
            metavar="A,B",
            values=(*FORMATS, *(f"depth-{name}" for name in STILLS)),
        ),
    ] = None
    if_exists: IfExists = "skip"
    report: ReportOptions = field(default_factory=ReportOptions)
    views: ViewsOptions = field(default_factory=ViewsOptions)
    frames: FrameOptions = field(default_factory=FrameOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    backend: BackendOptions = field(default_factory=BackendOptions)
    shape: SceneShapeOptions = field(default_factory=SceneShapeOptions)
    server: ServerOptions = field(default_factory=ServerOptions)


@grouped(without=LEFT_OUT)
def scene(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Pictures, or one folder, clip, COLMAP or Nerfstudio folder."),
    ],
    output: Annotated[
        Optional[str],
        option("Folder for the results. Default: INPUT_scene beside a single input.", "-o", "--output", metavar="PATH"),
    ] = None,
    *,
    options: SceneOptions,
) -> None:
    """Estimate depth and cameras of the pictures of one place: clouds, meshes, COLMAP.

    depth scene photos                             writes photos_scene/: npz, scene.glb, depth_vis/
    depth scene a.jpg b.jpg c.jpg -o room          three pictures, in this order
    depth scene walk.mp4 --fps 2 -f colmap,ply     frames of a clip, for 3D reconstruction
    depth scene walk.mp4 --fps 5 --chunk 60        any length, in chunks: the path, a cloud
    depth scene garden -f depth-exr --metres       a COLMAP folder: its cameras are used; depth in metres

    The model is da3-base, unless --model names another one for scenes.
    Depth and places have one scale, which is arbitrary unless cameras are given, or --metres.
    The same command continues an interrupted run; what is there is skipped.
    """
    from depthcli.jobs.scene_inputs import recognise

    do_scene(recognise(inputs, options.views.model_folder), inputs, output, options)


def do_scene(found: "SceneInput", inputs: list[str], output: Optional[str], options: SceneOptions) -> None:
    """Make the scene of what was found, report it, and leave with the exit code. inputs: as the user named them."""
    remote = _service(options)
    with remote.client if remote else nullcontext():
        _do_scene(found, inputs, output, options, remote)


def _do_scene(
    found: "SceneInput",
    inputs: list[str],
    output: Optional[str],
    options: SceneOptions,
    remote: "Optional[RemoteScenes]",
) -> None:
    from depthcli.cli.report import SceneReport, stop_signals
    from depthcli.jobs.manifest import DONE, Result
    from depthcli.jobs.scene import Made, Note, SceneJob, Shot, Unread, summary_of
    from depthcli.jobs.scene_inputs import SceneSource

    frames = options.frames.choice()
    chunks = ChunksChoice(options.views.chunk, options.views.overlap, options.views.loops)
    job = SceneJob(
        found=found,
        folder=_folder(inputs, output),
        formats=parse_list(options.formats) or (DEFAULT_FORMATS if chunks.chunk is None else FORMATS_OF_CHUNKS),
        model=options.model.choice() if remote is None else ModelChoice(model=remote.model.name),
        backend=options.backend.choice(),
        views=options.views.choice(),
        frames=frames,
        show=options.shape.choice(),
        poses=options.views.poses,
        max_views=options.views.max_views,
        if_exists=options.if_exists,
        chunks=chunks,
    )
    show = options.report
    report = SceneReport(len(job.ordered), as_json=show.as_json, quiet=show.quiet, verbose=show.verbose)
    if remote is not None:
        remote.client.log = report.log
    made: Optional[Made] = None
    own, done = job, 0

    def tell() -> None:
        if made is not None and report.counts[DONE] > done:
            report.summary(f"{summary_of(made)}, in {own.folder}")

    with report, stop_signals(show.quiet) as stop:
        stop.at_once = True  # nothing is lost: files appear whole, and what is done stays
        report.log(f"{found.rule}: {frames.words}" if found.source is SceneSource.CLIP else found.rule)
        with closing(_events(job, remote)) as events:
            for event in events:
                if isinstance(event, Note):
                    report.log(event.text)
                elif isinstance(event, Unread):
                    report.unread(event.result)
                elif isinstance(event, Made):
                    made = event
                elif isinstance(event, Shot):
                    tell()
                    made, own, done = None, event.job, report.counts[DONE]
                    if event.number > 1:
                        report.total = (report.total or 0) + len(job.ordered)
                    report.log(f"shot {event.number}: frames {own.shot}")
                elif isinstance(event, Result):
                    report.add(event)
        tell()
        report.finish()
    raise typer.Exit(report.exit_code())


def _service(options: SceneOptions) -> "Optional[RemoteScenes]":
    """Return the service that was asked for, None if this machine does the work."""
    from depthcli.cli.running import open_server

    only_here = {name: getattr(options.views, name) is not None for name in ("poses", "align_to_input_scale")}
    only_here["model_folder"] = bool(options.views.model_folder)
    client = open_server(options.server, options.model, options.backend, only_here)
    if client is None:
        return None
    from depthcli.jobs.remote_scene import RemoteScenes

    try:
        return RemoteScenes.of(client, options.model.choice(), parse_list(options.formats) or ())
    except BaseException:
        client.close()
        raise


def _events(job: "SceneJob", remote: "Optional[RemoteScenes]") -> "Generator[Event, None, None]":
    from depthcli.jobs.scene import run_scene

    if remote is None:
        return run_scene(job, lambda: _load(job))
    from depthcli.jobs.remote_scene import run_scene_on_service

    return run_scene_on_service(job, remote)


def _load(job: "SceneJob") -> "SceneEstimator":
    from depthcli.cli.report import log
    from depthcli.predict.scene import SceneEstimator

    wanted = {"gaussians": job.wants_gaussians, "features": job.wants_features}
    return SceneEstimator(job.model, job.backend, views=job.views, log=log, **wanted)


def _folder(inputs: list[str], output: Optional[str]) -> Path:
    """Return the folder of the results. Raises UsageError if there is no place for it, or it is a file."""
    from depthcli.cli.dir import beside
    from depthcli.jobs.targets import Target

    if output is None:
        if len(inputs) > 1:
            raise UsageError("several pictures have no place in common for a scene", "name a folder with -o")
        named = Path(inputs[0])
        return beside(named if named.is_dir() else named.with_suffix(""), "_scene")
    target = Target.of(output)
    if target.folder is None:
        raise UsageError(f"{target} is not a folder", "a scene is several files; put / at its end if it is a folder")
    return target.folder
