"""The camera of one picture of a scene whose poses are known, from a file of cameras."""

from __future__ import annotations

from dataclasses import replace

from depthcli.camera import Camera, same_ratio
from depthcli.errors import UsageError
from depthcli.io.cameras.stored import StoredCamera
from depthcli.scene import check_pose


def posed_camera(stored: StoredCamera, size: tuple[int, int]) -> Camera:
    """Return the camera of a picture of (width, height), with its pose.

    Intrinsics for another size of the same ratio are scaled. Raises UsageError for a camera without a pose or with one
    that is no rotation, with a lens, or for pictures of other sides.
    """
    name = stored.name or "the camera"
    if stored.pose is None:
        raise UsageError(f"{name} has no pose in the file of the cameras", "leave the cameras out to have them found")
    try:
        check_pose(stored.pose, name)
    except ValueError as error:
        raise UsageError(str(error), "poses are world to camera with OpenCV's axes") from error
    camera = stored.for_size(stored.size or size)
    if camera.distortion is not None:
        raise UsageError(
            f"the camera of {name} has a lens, which the network does not know",
            "undistort the pictures first, with COLMAP's image_undistorter",
        )
    if stored.size is not None and stored.size != size:
        if not same_ratio(stored.size, size):
            raise UsageError(
                f"the camera of {name} is for {stored.size[0]}x{stored.size[1]} pixels, and the picture has "
                f"{size[0]}x{size[1]}, which is no resize of it",
                "use the pictures that the cameras were found with",
            )
        camera = camera.resized(stored.size, size)
    return replace(camera, extrinsics=stored.pose)
