"""RF-DETR Segmentation, run by transformers: from a folder in its layout, or from a checkpoint of the rfdetr package.

Sizes of a checkpoint follow from the shapes of its tensors; only the windows of the encoder's attention do not.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from depthcli.errors import CheckpointError, EngineError, ModelError, first_line
from depthcli.nets.checkpoint import State, read_pickled
from depthcli.zoo.detectors import DetectorFiles, class_names, windows_of

_INSTALL = "pip install 'depthcli[objects]', with Python 3.10 or newer; or give `masks`"
_WANTED = "`detector` takes RF-DETR Segmentation"
_GROUPS = 13  # of queries in training, RF-DETR's own; one of them is used to detect
_HEAD_WIDTH = 16  # channels of a head of the decoder's cross attention: d_model 256, 16 heads
_ENCODER_HEAD = 64  # of DINOv2
_BUFFER = "_kp_active_mask"  # of the rfdetr package: empty, and nothing reads it
_LAYER = re.compile(r"transformer\.decoder\.layers\.(\d+)\.")
_BLOCK = re.compile(r"backbone\.0\.encoder\.encoder\.encoder\.layer\.(\d+)\.")


class RfDetr:
    """A loaded detector. Raises ModelError if its files do not make one, also for a missing package.

    side: of the square input in pixels. classes: names by number; other rows of the logits are no classes.
    network: the module of transformers. device: cpu, cuda or mps.
    """

    def __init__(self, files: DetectorFiles, device: str = "cpu", trust: bool = False) -> None:
        network, names = _from_folder(files.path) if files.is_folder else _from_checkpoint(files.path, trust)
        backbone = network.config.backbone_config
        size = backbone.image_size
        self.side = int(size if isinstance(size, int) else size[0])
        self.classes = names
        self.device = device
        try:
            self.network = network.eval().to(device)
        except (RuntimeError, AssertionError) as error:
            raise EngineError(f"`device` {device} cannot be used: {first_line(error)}", "use `device` cpu") from error

    def run(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (Q, C) logits, (Q, 4) boxes (middle and size, 0 to 1) and (Q, h, w) logits of masks, float32.

        image: (3, side, side) float32, normalised.
        """
        with torch.inference_mode():
            found = self.network(pixel_values=torch.from_numpy(image)[None].to(self.device))
        arrays = (found.logits, found.pred_boxes, found.pred_masks)
        return tuple(array[0].float().cpu().numpy() for array in arrays)


def pick_device(wanted: str) -> str:
    """Return the device that `auto` stands for: a GPU if there is one."""
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def _from_folder(folder: Path) -> tuple[Any, dict[int, str]]:
    transformers = _transformers()
    try:
        config = transformers.RfDetrConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # it raises what JSON and dataclasses do
        raise ModelError(f"{folder} is no RF-DETR: {first_line(error)}", "check its config.json") from error
    network = _built(
        folder,
        lambda: transformers.RfDetrForInstanceSegmentation.from_pretrained(
            folder, config=config, local_files_only=True, output_loading_info=True, dtype=torch.float32
        ),
    )
    return network, _names_of(config)


def _from_checkpoint(path: Path, trust: bool) -> tuple[Any, dict[int, str]]:
    transformers = _transformers()
    state, arguments = _read(path, trust)
    config = transformers.RfDetrConfig(**config_of(state, arguments, path))
    network = _built(
        path,
        lambda: transformers.RfDetrForInstanceSegmentation.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True
        ),
    )
    names = [str(name) for name in arguments.get("class_names") or []]
    return network, class_names(names, int(state["class_embed.weight"].shape[0]))


def _built(path: Path, make: Any) -> Any:
    """Return the network with every tensor in its place. Raises ModelError for any other file."""
    with silence():
        try:
            network, info = make()
        except Exception as error:  # whatever a damaged file leads to
            raise ModelError(f"{path} does not load as RF-DETR: {first_line(error)}", "fetch it again") from error
    wrong = [key for name in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[name]]
    if wrong:
        raise ModelError(f"{path} is no RF-DETR with masks: {str(wrong[0])[:80]} does not fit", _WANTED)
    return network


def config_of(state: Mapping[str, torch.Tensor], arguments: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the settings of transformers' RfDetrConfig for a checkpoint of the rfdetr package.

    arguments: those of its training, empty if it has none. Raises CheckpointError for any other state dict.
    """
    try:
        positions = state["backbone.0.encoder.encoder.embeddings.position_embeddings"].shape
        patch = int(state["backbone.0.encoder.encoder.embeddings.patch_embeddings.projection.weight"].shape[-1])
        queries, width = state["query_feat.weight"].shape
        points = state["transformer.decoder.layers.0.cross_attn.attention_weights.weight"].shape[0]
        layers = 1 + max(int(match[1]) for match in map(_LAYER.match, state) if match)
        blocks = 1 + max(int(match[1]) for match in map(_BLOCK.match, state) if match)
        _ = state["segmentation_head.bias"]
        grid = math.isqrt(positions[1] - 1)
        side = patch * grid
        attention = width // _HEAD_WIDTH
        return {
            "backbone_config": {
                "model_type": "rf_detr_dinov2",
                "hidden_size": int(positions[2]),
                "num_hidden_layers": blocks,
                "num_attention_heads": int(positions[2]) // _ENCODER_HEAD,
                "image_size": side,
                "patch_size": patch,
                "num_windows": int(arguments.get("num_windows") or windows_of(side)),
                "out_features": [f"stage{blocks * part // 4}" for part in (1, 2, 3, 4)],
                "layer_norm_eps": 1e-6,
                "hidden_act": "gelu",
                "mlp_ratio": 4,
                "qkv_bias": True,
                "use_swiglu_ffn": False,
            },
            "d_model": int(width),
            "num_queries": int(queries) // _GROUPS,
            "decoder_layers": layers,
            "decoder_self_attention_heads": attention // 2,
            "decoder_cross_attention_heads": attention,
            "decoder_n_points": int(points) // attention,
            "num_labels": int(state["class_embed.weight"].shape[0]),
        }
    except (KeyError, ValueError, IndexError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else first_line(error)
        raise CheckpointError(f"{path} is no RF-DETR with masks: {reason}", _WANTED) from error


def _read(path: Path, trust: bool) -> tuple[State, dict[str, Any]]:
    """Return the tensors of a checkpoint and the arguments of its training. Nothing in the file is executed."""
    content = read_pickled(path, trust, allowed=(argparse.Namespace,))
    arguments: Any = {}
    if isinstance(content, Mapping):
        arguments = content.get("args") or {}
        content = content.get("model", content.get("state_dict", content))
    if isinstance(arguments, argparse.Namespace):
        arguments = vars(arguments)
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds no tensors by name", "give the .pth of RF-DETR")
    prefix = re.compile(r"^(module|model)\.")
    state = {prefix.sub("", key): value for key, value in content.items()}
    state.pop(_BUFFER, None)
    return state, dict(arguments) if isinstance(arguments, Mapping) else {}


def _names_of(config: Any) -> dict[int, str]:
    """Return the named classes of a configuration; those that transformers made up, and gaps, have no name."""
    names = {int(number): str(name) for number, name in (config.id2label or {}).items()}
    gaps = {"n/a", "background", "none", ""}
    named = {number: name for number, name in names.items() if name.strip().casefold() not in gaps}
    if all(name == f"LABEL_{number}" for number, name in named.items()):
        return class_names([], len(names))
    return {number: name for number, name in named.items() if name != f"LABEL_{number}"}


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ModelError("a detector needs the package transformers", _INSTALL) from error
    if not hasattr(transformers, "RfDetrForInstanceSegmentation"):
        version = transformers.__version__
        raise ModelError(f"transformers {version} has no RF-DETR with masks, which came with 5.9", _INSTALL)
    # It takes torch from some version on, and is silent about older ones.
    if not transformers.utils.is_torch_available():
        raise ModelError(f"transformers {transformers.__version__} cannot use torch {torch.__version__}", _INSTALL)
    return transformers


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep transformers from drawing a bar and from listing tensors while it loads."""
    from transformers.utils import logging

    bar: Optional[bool] = logging.is_progress_bar_enabled()
    level = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
