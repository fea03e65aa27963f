"""Settings as flags: the library names `input_size`, a terminal shows --input-size."""

from __future__ import annotations

from depthcli.errors import word_settings

# Settings whose flag is not their own name with dashes.
_FLAGS = {
    "formats": "--format",
    "output": "-o",
    "scenes": "--scene",
    "template": "--name",
    "trust": "--trust-checkpoint",
    "value_range": "--range",
}
_SAME_NAME = (
    "allow_cpu_ops allow_standin analyze_only artifacts backend batch calibration checkpoint colormap device"
    " encoder end exact exclude fast_math fps from_dir if_exists include input_size keep_alpha max_depth"
    " max_frames metric mix_models model offline panorama pipe precision preset rate shape_policy size start"
    " steady stride target timeout workdir"
)
_FLAGS.update({name: "--" + name.replace("_", "-") for name in _SAME_NAME.split()})


def worded(text: str) -> str:
    """Return a text of the library with its settings as flags."""
    return word_settings(text, lambda name: _FLAGS.get(name, f"`{name}`"))
