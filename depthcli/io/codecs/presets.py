"""The table of presets: what a program wants, as formats and files beside them. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from depthcli.errors import UsageError

PARAMS, TRANSFORMS = "sparse/0/depth_params.json", "transforms.json"


@dataclass(frozen=True)
class Preset:
    """One target program.

    formats: of each map. endings: behind its stem, for formats that need another than their suffix. folder: below the
    output, for the maps. camera: the file with the camera beside each map, a key of CAMERA_FILES in preset_outputs.
    scene: path of the file about all maps, which SCENE_FILES in jobs.presets writes. photo: ending of a JPEG copy of
    the photo beside a map. quilt: whether one stands there too. layout: of the eyes that are written instead of a map.
    sequence: before the numbers of maps that one file holds.
    """

    name: str
    what: str
    formats: tuple[str, ...]
    endings: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    camera: str = ""
    scene: str = ""
    photo: str = ""
    quilt: bool = False
    layout: str = ""
    sequence: str = "_"

    @property
    def needs_photo(self) -> bool:
        """Whether it shows the photo."""
        return bool(self.photo or self.quilt or self.layout)

    @property
    def several(self) -> bool:
        """Whether it writes more than one file for a map, or into folders."""
        return bool(len(self.formats) > 1 or self.folder or self.camera or self.photo or self.quilt or self.layout)


PRESETS: Mapping[str, Preset] = {
    row.name: row
    for row in (
        Preset("nuke", "EXR with the camera in its attributes", ("exr",), sequence="."),
        Preset("nuke-far0", "the same with 1 / z, 0 at infinity", ("far0",), sequence="."),
        Preset("blender", "EXR, and a mesh with a camera (GLB)", ("exr", "glb")),
        Preset("3dgs", "depths/*.png and depth_params.json", ("3dgs",), folder="depths", scene=PARAMS),
        Preset("nerfstudio", "millimetres and transforms.json", ("mm",), folder="depths", scene=TRANSFORMS),
        Preset("ngp", "millimetres and transforms.json of instant-ngp", ("mm",), folder="depths", scene=TRANSFORMS),
        Preset("ros", "millimetres and camera_info", ("mm",), camera="ros"),
        Preset("controlnet", "8-bit gray, white is near", ("controlnet",)),
        Preset("kitti", "metres x 256 and calib.txt", ("kitti",), camera="kitti"),
        Preset("tum", "metres x 5000 and the camera", ("tum",), camera="matrix"),
        Preset("scannet", "millimetres and the camera", ("scannet",), camera="matrix"),
        Preset("facebook", "photo and gray map", ("gray8",), endings={"gray8": "_depth.png"}, photo=".jpg"),
        Preset("lookingglass", "photo and gray map side by side, and a quilt", ("rgbd",), quilt=True),
        Preset("vr", "two eyes side by side in full size", (), layout="sbs"),
        Preset("aftereffects", "16-bit gray, black is near", ("black",)),
        Preset("resolve", "16-bit gray, white is near", ("white",)),
    )
}


def preset_of(name: str | None) -> Preset | None:
    """Return the preset with that name. Raises UsageError for an unknown one."""
    if name is None:
        return None
    if name not in PRESETS:
        raise UsageError(f"no preset is called {name!r}", f"choose from: {', '.join(PRESETS)}")
    return PRESETS[name]
