"""`depth eval --protocol`: data sets by the protocols of published benchmarks."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Callable, Optional

import typer

from depthcli.cli.groups import ADVANCED, grouped, option
from depthcli.cli.options import BackendOptions, ModelOptions, NetworkOptions
from depthcli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from depthcli.eval.benchmarks import Cameras, ClipRules, SceneScore
    from depthcli.eval.layouts import Layout, TrueScene
    from depthcli.scene import Scene

# Written out because their own modules load NumPy.
PROTOCOLS = ("da3-pose", "da3-recon", "da3-recon-posed", "depthcrafter")
LAYOUTS = (
    *("7scenes", "eth3d", "scannetpp", "hiroom", "dtu", "dtu64"),
    *("sintel", "scannet", "bonn", "kitti", "nyu"),
)
KINDS = ("relative_disparity", "relative_depth", "metric_depth")
# Figure, heading, digits behind the point.
_COLUMNS = {
    "da3-pose": (
        *((f"auc_da3_{at}", f"AUC{at} DA3", 3) for at in (3, 5, 15, 30)),
        *((f"auc_exact_{at}", f"AUC{at}", 3) for at in (3, 5, 15, 30)),
        *(("ate_rmse", "ATE", 4), ("rpe_translation", "RPE t", 4), ("rpe_rotation", "RPE r", 3)),
    ),
    "da3-recon": (
        *(("accuracy", "acc", 4), ("completeness", "comp", 4), ("overall", "overall", 4)),
        *(("precision", "precision", 3), ("recall", "recall", 3), ("f_score", "F-score", 3)),
    ),
    "depthcrafter": (
        *(("abs_rel", "AbsRel", 3), ("delta1", "delta1", 3), ("rmse", "RMSE", 3)),
        *(("opw", "OPW", 3), ("tae", "TAE %", 3)),
    ),
}
_COLUMNS["da3-recon-posed"] = _COLUMNS["da3-recon"]


@grouped(without=("panorama", "batch", "detail"))
def benchmark(
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="Folder of a data set, or a list with clips: docs/eval.md.")
    ],
    protocol: Annotated[
        str,
        option(
            "da3-pose (cameras), da3-recon and da3-recon-posed (surfaces), depthcrafter (clips).",
            metavar="NAME",
            values=PROTOCOLS,
        ),
    ],
    layout: Annotated[
        Optional[str],
        option("Layout of the data set: docs/eval.md. Default: TRUTH is a list.", metavar="NAME", values=LAYOUTS),
    ] = None,
    scene: Annotated[Optional[list[str]], option("Only this scene or clip. Repeatable.", metavar="NAME")] = None,
    predictions: Annotated[
        Optional[Path], option("Score the results in this folder, not a model.", metavar="FOLDER")
    ] = None,
    output: Annotated[
        Optional[str],
        option("Write all figures as JSON; - prints them instead of the table.", "--json", metavar="FILE"),
    ] = None,
    prediction_kind: Annotated[
        Optional[str],
        option("Kind of depth in files that do not name it.", panel=ADVANCED, metavar="KIND", values=KINDS),
    ] = None,
    *,
    model: ModelOptions,
    network: NetworkOptions,
    backend: BackendOptions,
) -> None:
    """Score a model, or saved results, by the protocol of a benchmark.

    depth eval --protocol da3-pose --layout 7scenes DATA/7Scenes --predictions scenes
    depth eval --protocol da3-recon --layout eth3d DATA/eth3d --model da3-base
    depth eval --protocol depthcrafter --layout sintel DATA/Sintel --predictions clips
    depth eval --protocol depthcrafter clips.csv --predictions maps

    The table has one row per scene and their mean; the protocol is printed under it.
    """
    from depthcli.eval.benchmarks import CLIPS, ClipRules, check_layout, clips_of, named
    from depthcli.eval.layouts import layout_of, read_layout
    from depthcli.eval.lists import read_list
    from depthcli.eval.predictions import parse_kind

    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown `protocol` {protocol!r}", f"choose from: {', '.join(PROTOCOLS)}")
    has_model = (model, network, backend) != (ModelOptions(), NetworkOptions(), BackendOptions())
    if predictions is not None and has_model:
        raise UsageError("`predictions` are made already, no model runs", "leave out the options of model and speed")
    if predictions is not None and not predictions.is_dir():
        raise UsageError(f"{predictions} is not a folder", "check `predictions`")
    if predictions is None and prediction_kind is not None:
        raise UsageError("`prediction_kind` needs `predictions`", "it describes saved files")
    kind = parse_kind(prediction_kind)
    row = None if layout is None else layout_of(layout)
    if row is None:
        if protocol != CLIPS or truth.is_dir():
            raise UsageError(f"{truth} needs a `layout`", f"choose from: {', '.join(LAYOUTS)}")
        rules = {found.name: (found, rule) for found, rule in clips_of(read_list(truth))}
        scenes = named([found for found, _ in rules.values()], scene or ())
    else:
        check_layout(protocol, row)
        scenes = named(read_layout(truth, row), scene or ())
        rules = {found.name: (found, ClipRules.of(row)) for found in scenes} if protocol == CLIPS else {}
    if output not in (None, "-"):
        _check_output(Path(str(output)))
    if protocol == CLIPS:
        frames = _saved_frames(predictions, kind) if predictions else _made_frames(model, network, backend)
        score = _clip_scorer(rules, frames)
        scores, code = _run(scenes, score)
    else:
        assert row is not None
        scores, code = _score_scenes(scenes, protocol, row, predictions, (model, network, backend))
    if output != "-":
        _print(scores, protocol)
    if output is not None:
        _write(scores, protocol, {"layout": layout, "truth": truth.name}, output, len(scenes))
    raise typer.Exit(code)


def _score_scenes(
    scenes: Sequence["TrueScene"],
    protocol: str,
    row: "Layout",
    predictions: Optional[Path],
    options: tuple[ModelOptions, NetworkOptions, BackendOptions],
) -> tuple[list["SceneScore"], int]:
    from depthcli.eval import benchmarks

    def compare(scene: "TrueScene", cameras: "Callable[[], Cameras]", whole: "Callable[[], Scene]") -> "SceneScore":
        if protocol == benchmarks.POSE:
            return benchmarks.score_cameras(scene, cameras())
        assert row.fusion is not None
        return benchmarks.score_reconstruction(scene, whole(), row.fusion, posed=protocol == benchmarks.RECON_POSED)

    if predictions is not None:
        folder = predictions
        return _run(
            scenes,
            lambda scene: compare(
                scene,
                lambda: benchmarks.saved_cameras(folder, scene.name),
                lambda: benchmarks.saved_scene(folder, scene.name),
            ),
        )
    from depthcli.choices.scenes import ViewsChoice
    from depthcli.cli.report import log
    from depthcli.eval.layouts import draw
    from depthcli.predict.scene import SceneEstimator

    model, network, backend = options
    views = ViewsChoice(input_size=network.input_size, reference="first")
    with SceneEstimator(model.choice(), backend.choice(), views=views, log=log) as estimator:

        def made(scene: "TrueScene") -> "Scene":
            chosen = scene.chosen(draw(len(scene.entries), benchmarks.MOST_VIEWS))
            return estimator.estimate([entry.picture for entry in chosen.entries])

        def score(scene: "TrueScene") -> "SceneScore":
            found = made(scene)
            names = tuple(view.name for view in found.views)
            return compare(scene, lambda: benchmarks.Cameras(names, found.extrinsics), lambda: found)

        return _run(scenes, score)


_Frames = Callable[["TrueScene", "ClipRules"], Sequence[Any]]


def _clip_scorer(
    rules: dict[str, tuple["TrueScene", "ClipRules"]], frames: _Frames
) -> Callable[["TrueScene"], "SceneScore"]:
    from depthcli.eval.benchmarks import frames_of, score_frames

    def score(scene: "TrueScene") -> "SceneScore":
        rule = rules[scene.name][1]
        return score_frames(frames_of(scene, rule), rule, frames(scene, rule))

    return score


def _saved_frames(folder: Path, kind: Any) -> _Frames:
    from depthcli.eval.benchmarks import saved_frames

    return lambda scene, rules: saved_frames(folder, scene, rules, kind)


def _made_frames(model: ModelOptions, network: NetworkOptions, backend: BackendOptions) -> _Frames:
    """Return what runs a model over the cropped pictures of a clip."""
    from depthcli.choices.clips import ClipChoice
    from depthcli.cli.report import log
    from depthcli.eval.benchmarks import cropped, frames_of
    from depthcli.io.pictures.images import read_picture
    from depthcli.predict.clip import estimate_clip

    choice = ClipChoice(input_size=network.input_size, backend=backend.choice(), scenes=False)

    def made(scene: "TrueScene", rules: "ClipRules") -> Sequence[Any]:
        def pictures() -> Iterator[Any]:
            for entry in frames_of(scene, rules).entries:
                yield cropped(read_picture(entry.picture).rgb, rules)

        return list(estimate_clip(pictures(), model.choice(), choice, log=log))

    return made


def _run(scenes: Sequence["TrueScene"], score: Callable[["TrueScene"], "SceneScore"]) -> tuple[list["SceneScore"], int]:
    """Return the scores and the exit code; Ctrl-C ends it after the current scene, a second one at once."""
    from depthcli.cli.report import Report, log, stop_signals
    from depthcli.eval.benchmarks import score_each
    from depthcli.jobs.manifest import DONE, FAILED, Result

    scores: list[SceneScore] = []
    with Report(len(scenes)) as progress, stop_signals(quiet=False, unit="scene") as stop:
        try:
            for found in score_each(scenes, score):
                scores.append(found)
                status = FAILED if found.error else DONE
                progress.add(Result(found.name, (), status, error=found.error, code=found.code))
                if stop.asked:
                    break
        except KeyboardInterrupt:
            pass
        progress.finish()
    interrupted = len(scores) < len(scenes)
    if interrupted:
        log(f"interrupted: {len(scores)} of {len(scenes)} scenes")
    return scores, progress.exit_code(interrupted)


def _print(scores: Sequence["SceneScore"], protocol: str) -> None:
    from depthcli.cli.tables import empty_table, print_table
    from depthcli.eval.benchmarks import PROTOCOLS as SENTENCES
    from depthcli.eval.benchmarks import mean

    scored = [score for score in scores if not score.error]
    if not scored:
        return
    means = mean(scored)
    columns = [column for column in _COLUMNS[protocol] if means.get(column[0]) is not None]
    table = empty_table()
    table.add_column("scene", no_wrap=True)
    table.add_column("frames", justify="right", no_wrap=True)
    for _, heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)

    def cells(figures: Any) -> list[str]:
        found = [(figures.get(name), digits) for name, _, digits in columns]
        return ["-" if value is None else f"{value:.{digits}f}" for value, digits in found]

    for score in scored:
        table.add_row(score.name, str(score.frames), *cells(score.figures))
    table.add_section()
    table.add_row(f"mean of {len(scored)}", "", *cells(means), style="bold")
    print_table(table)
    print(f"protocol: {SENTENCES[protocol]}")


def _check_output(path: Path) -> None:
    """Make the folder of the JSON file before the work. Raises OutputError, UsageError."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a file", "name the file of --json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", "use another --json") from error


def _write(scores: Sequence["SceneScore"], protocol: str, source: dict[str, Any], output: str, total: int) -> None:
    from depthcli.eval.benchmarks import PROTOCOLS as SENTENCES
    from depthcli.eval.benchmarks import SCHEMA, mean
    from depthcli.host.atomic import atomic_path
    from depthcli.version import __version__

    def finite(figures: Any) -> dict[str, Any]:
        return {name: value if value is not None and math.isfinite(value) else None for name, value in figures.items()}

    rows = [
        {"name": score.name, "error": score.error}
        if score.error
        else {"name": score.name, "frames": score.frames, **finite(score.figures)}
        for score in scores
    ]
    summary = {
        "mean": finite(mean([score for score in scores if not score.error])),
        "failed": sum(bool(score.error) for score in scores),
        **({"interrupted": True} if len(scores) < total else {}),
    }
    about = {"schema": SCHEMA, "depthcli": __version__, "protocol": protocol, "definition": SENTENCES[protocol]}
    text = json.dumps({**about, **source, "scenes": rows, "summary": summary}, indent=1, allow_nan=False)
    if output == "-":
        print(text)
        return
    with atomic_path(Path(output)) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
