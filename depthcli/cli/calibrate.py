"""`depth calibrate`: scale and shift of one picture's depth, for other pictures of the same fixed camera."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.cli.groups import flag, grouped, option
from depthcli.cli.options import BackendOptions, CameraOptions, MetresOptions, ModelOptions, NetworkOptions
from depthcli.errors import UsageError


@grouped(without=("batch", "panorama", "scale", "calibration_from", "calibration"))
def calibrate(
    name: Annotated[Path, typer.Argument(metavar="FILE", help="A picture in which something was measured.")],
    output: Annotated[
        Optional[Path], option("Result. Default: FILE_calibration.json.", "-o", "--output", metavar="PATH")
    ] = None,
    as_json: Annotated[bool, flag("Print the calibration as JSON.", "--json")] = False,
    quiet: Annotated[bool, flag("Print errors and warnings only.", "--quiet", "-q")] = False,
    *,
    model: ModelOptions,
    network: NetworkOptions,
    backend: BackendOptions,
    camera: CameraOptions,
    metres: MetresOptions,
) -> None:
    """Find the scale and shift that make metres of a model's depth, by what was measured.

    depth calibrate a.jpg --scale-from at:812,540=2.35 --scale-from z:300,410=7.1
    depth calibrate a.jpg --scale-from lidar.png -o camera.json
    depth dir photos --calibration-from camera.json -f npz      the same camera at the same place

    Scale and shift differ from scene to scene: they hold for a camera that does not move.
    """
    from depthcli.cli.report import log
    from depthcli.cli.running import open_model
    from depthcli.predict.metres import write_calibration

    choice = metres.choice()
    if not choice.scale_from:
        raise UsageError("there is no reference", "give `scale_from`, such as at:812,540=2.35")
    path = output or name.with_name(f"{name.stem}_calibration.json")
    if path.is_dir():
        raise UsageError(f"{path} is a folder", "name a file with `output`")
    with open_model(model, backend, network, camera=camera.choice(), metres=choice) as estimator:
        depth = estimator.estimate(str(name))
    found = depth.calibration
    assert found is not None
    write_calibration(found, path)
    if as_json:
        from depthcli.calibration import describe_calibration

        print(json.dumps({"output": str(path), "calibration": describe_calibration(found)}))
    elif not quiet:
        print(path)
        log(found.line())
    for line in found.warnings:
        log(f"warning: {name}: {line}")
