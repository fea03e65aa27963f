"""Which model a file of weights is: by its content, its config.json or its name."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from depthcli.errors import CheckpointError
from depthcli.zoo.locate import ASSETS, PACKAGE, AnyPath, WeightsFile, how_to_place, named_file
from depthcli.zoo.rows import (
    DA3_NETWORKS,
    DEPTH_ANYTHING_3,
    DEPTH_ANYTHING_V2,
    NETWORKS,
    ROWS,
    TINY,
    VIDEO_DEPTH_ANYTHING,
    Channel,
    ModelRow,
    ModelTask,
)
from depthcli.zoo.verify import digest

if TYPE_CHECKING:
    from depthcli.zoo.trained import Trained

_TITLES = {
    DEPTH_ANYTHING_V2: "Depth Anything V2",
    VIDEO_DEPTH_ANYTHING: "Video-Depth-Anything",
    DEPTH_ANYTHING_3: "Depth Anything 3",
    TINY: "depthcli tiny",
}
_V1 = "Depth Anything V1"  # a family without a row
# These patterns are searched in names in lower case with "-" for "_".
_FOREIGN = (
    (re.compile(r"depth-?anything-?v?3|(^|-)da3"), DEPTH_ANYTHING_3),
    (re.compile(r"^liheyoung|depth-?anything-(v1|vit[sbl]14|metric-depth|(small|base|large)(-hf)?$)"), _V1),
)
_ENCODER = re.compile(r"(?:^|-)(?:vit([sblg])|(small|base|large|giant))(?=-|$)")
# Names of files, folders and repositories of Depth Anything 3, as "DA3MONO-LARGE" or "da3-large-1.1".
_DA3 = re.compile(r"(?:.*--)?da3-?(mono|metric|nested)?-?(?:(small|base|large|giant)(?:-large)?)?(?:-1\.1)?")
_CLIPS = re.compile(r"(metric-)?video-?depth-?anything")
_METRIC = re.compile(r"metric-(hypersim|indoor|vkitti|outdoor)")
_SCENES = {"hypersim": "indoor", "indoor": "indoor", "vkitti": "outdoor", "outdoor": "outdoor"}
# A fine-tune may have any name, so only a published name in full shows a relative model.
_RELATIVE = re.compile(
    r"(depth-anything--)?(depth-anything-v2|video-depth-anything)-(vit[sblg]|small|base|large|giant)(-hf|-fp16|-fp32)?"
)


@dataclass(frozen=True)
class _Claim:
    """The model that a file's name or its config.json indicates.

    family: of its model, "" if unknown. scene: as in ModelRow, None if unknown.
    """

    family: str = ""
    encoder: Optional[str] = None
    scene: Optional[str] = None

    @property
    def row(self) -> ModelRow | None:
        """The row with these columns, if there is one."""
        claim = (self.family, self.encoder, self.scene)
        return next((row for row in ROWS if (row.family, row.encoder, row.scene) == claim), None)


def check_identity(row: ModelRow, file: WeightsFile) -> None:
    """Raise CheckpointError if a file's content, config or name shows another model than `row`.

    Depth Anything V1 and the metric models have the names and shapes of the relative V2 models, so tensors cannot tell.
    """
    sha256 = file.sha256 or digest(file.path)
    if file.where == PACKAGE or sha256 == row.weights.sha256:
        return
    owner = _owner(sha256)
    if owner is not None:
        _demand_same(file.path, owner, row)
        return
    if file.path.name == row.weights.file and file.path.stat().st_size == row.weights.bytes:
        raise CheckpointError(
            f"{file.path} is damaged: it has the name and size of the published file, but another content",
            "delete it and fetch it again, or give it another name if it is your own",
        )
    claim = _claim_of(file.path)
    if claim.row is not None and (claim.row.task is row.task or claim.family == row.family == DEPTH_ANYTHING_3):
        _demand_same(file.path, claim.row, row)
    if claim.family not in ("", row.family):
        hint = "use: depth video" if claim.family == VIDEO_DEPTH_ANYTHING else how_to_place(row)
        found = _TITLES.get(claim.family, claim.family)
        raise CheckpointError(f"{file.path} is of {found}, not of {_TITLES[row.family]}", hint)
    metric = row.kind.is_metric
    if claim.scene == "" and metric:
        raise CheckpointError(f"{file.path} is a relative model, but metric depth was asked for", "leave out `metric`")
    if claim.scene and (not metric or claim.scene not in ("metric", row.scene)):
        asked = f"{row.scene} metric depth" if metric else "relative depth"
        scenes = "indoor or outdoor" if claim.scene == "metric" else claim.scene
        message = f"{file.path} is a metric model ({claim.scene}), but {asked} was asked for"
        raise CheckpointError(message, f"set `metric` to {scenes}")


def is_published(row: ModelRow, file: WeightsFile) -> bool:
    """Return whether a file holds the row's published weights, and so has its title and licence."""
    weights = row.weights
    if trained_facts(file.path) is not None:
        return False
    if weights.channel is Channel.PACKAGE or weights.sha256 is None:
        if row.family == DEPTH_ANYTHING_3:  # all of its files have one name
            return file.from_hub or file.path.parent.name == weights.repo.rpartition("/")[2]
        return file.from_hub or file.where == PACKAGE or file.path.name == weights.file
    return file.from_hub or file.sha256 == weights.sha256


def row_for_checkpoint(path: AnyPath) -> ModelRow | None:
    """Return the row of a file by its content or an official name, or None. CheckpointError if the file is missing."""
    path = named_file(path)
    owner = _owner(digest(path))
    if owner is not None:
        return owner
    return _claim_of(path).row


def as_trained(row: ModelRow, path: Path) -> ModelRow:
    """Return the row with range, input size and licence of a checkpoint of `depth train`; itself for other files."""
    trained = trained_facts(path)
    found = trained and trained.row
    return found if found and found.name == row.name else row


def trained_facts(path: Path) -> Trained | None:
    """Return what a checkpoint of `depth train` says about itself, None for other files."""
    if path.parent == ASSETS:  # and a start with the packaged model loads a module less
        return None
    from depthcli.zoo.trained import read_trained

    return read_trained(path)


def _claim_of(path: Path) -> _Claim:
    trained = trained_facts(path)
    row = trained and trained.row
    if row:
        return _Claim(row.family, row.encoder, row.scene)
    return _read_config(path) or _read_name(path)


def _owner(sha256: str) -> ModelRow | None:
    return next((row for row in ROWS if row.weights.sha256 == sha256), None)


def _read_name(path: Path) -> _Claim:
    """Return what the file's name indicates, or else that of its repository or folder."""
    repositories = [part[len("models--") :] for part in path.parts if part.startswith("models--")]
    for name in (path.stem, *repositories, path.absolute().parent.name):
        name = name.lower().replace("_", "-")
        size, metric, clips = _ENCODER.search(name), _METRIC.search(name), _CLIPS.search(name)
        encoder = f"vit{size.group(1) or size.group(2)[0]}" if size else None
        if clips:
            scene = "metric" if clips.group(1) else "" if _RELATIVE.fullmatch(name) else None
            return _Claim(VIDEO_DEPTH_ANYTHING, encoder, scene)
        da3 = _DA3.fullmatch(name)
        if da3:
            network = _da3_network(*da3.groups())
            return _Claim(DEPTH_ANYTHING_3, network, None if network is None else _scene_of(network))
        for pattern, family in _FOREIGN:
            if pattern.search(name):
                return _Claim(family)
        if metric:
            return _Claim(DEPTH_ANYTHING_V2, encoder, _SCENES[metric.group(1)])
        if _RELATIVE.fullmatch(name):
            return _Claim(DEPTH_ANYTHING_V2, encoder, "")
    return _Claim()


def _read_config(path: Path) -> _Claim | None:
    """Return what the config.json of transformers beside a file indicates, or None."""
    if path.stem not in ("model", "pytorch_model"):
        return None
    try:
        config = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
        named = config.get("model_name")
        if isinstance(named, str) and named in DA3_NETWORKS:
            return _Claim(DEPTH_ANYTHING_3, named, _scene_of(named))
        taps, width = config["backbone_config"]["out_indices"], config["backbone_config"]["hidden_size"]
        scene = ""
        if config.get("depth_estimation_type") == "metric":
            scene = {20.0: "indoor", 80.0: "outdoor"}.get(float(config["max_depth"]), "metric")
        last_four = taps == list(range(taps[-1] - 3, taps[-1] + 1))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    encoder = next((name for name, size in NETWORKS.items() if getattr(size, "embed_dim", None) == width), None)
    # V1 and V2 differ only in the blocks that the head reads: V1 reads the last four.
    return _Claim(_V1 if last_four else DEPTH_ANYTHING_V2, encoder, scene)


def _da3_network(kind: Optional[str], size: Optional[str]) -> Optional[str]:
    """Return the network that parts of a name of Depth Anything 3 stand for, None if that is not certain."""
    if kind in ("mono", "metric"):
        return f"da3{kind}-large"
    return "da3nested-giant-large" if kind == "nested" else f"da3-{size}" if size else None


def _scene_of(network: str) -> Optional[str]:
    return next((row.scene for row in ROWS if row.family == DEPTH_ANYTHING_3 and row.encoder == network), None)


def _demand_same(path: Path, found: ModelRow, asked: ModelRow) -> None:
    if found.name == asked.name:
        return
    if found.task is not ModelTask.PICTURE or DEPTH_ANYTHING_3 in (found.family, asked.family):
        way = f"set `model` to {found.name}"
    elif found.kind.is_metric:
        way = f"set `encoder` to {found.encoder} and `metric` to {found.scene}"
    else:
        way = f"set `encoder` to {found.encoder} and leave out `metric`"
    raise CheckpointError(f"{path} holds {found.name}, but {asked.name} was asked for", way)
