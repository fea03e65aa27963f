"""The files of pictures: their names, and how they are opened. Imports no decoder."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from depthcli.errors import PictureError

PICTURE_SUFFIXES = frozenset(
    ".apng .avif .bmp .dib .gif .heic .heif .hif .j2k .jfif .jp2 .jpe .jpeg .jpg .mpo"
    " .pam .pbm .pgm .png .pnm .ppm .ras .sr .tif .tiff .webp".split()
)


def is_picture(path: Path) -> bool:
    """Return whether a file in a folder is taken as a picture: by its suffix, if it is not hidden.

    The content does not count, so that a broken `.jpg` is reported and not skipped. PFM and HDR can be read but are not
    taken: .pfm is mostly measured depth beside pictures, and .hdr may describe a raw file. Hidden files include the
    `._x.jpg` that macOS leaves on foreign disks.
    """
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def open_picture_file(path: Path | str, name: str) -> BinaryIO:
    """Open a file for reading. Raises PictureError for what is not a regular file or may not be read."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode) and not may_be_listed(path):
            raise PictureError(f"{name} is a folder that may not be read: permission denied", "leave it out")
        if stat.S_ISDIR(mode):
            raise PictureError(f"{name} is a folder, not a picture", "depth dir takes folders")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise PictureError(f"{name} is not a file", "save it to a file first")
        return open(path, "rb")
    except FileNotFoundError as error:
        raise PictureError(f"{name} does not exist", "check the path") from error
    except PermissionError as error:
        raise PictureError(f"{name} may not be read: permission denied", "check the file's permissions") from error
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise PictureError(f"{name} cannot be opened: {reason}", "check the path") from error
    except ValueError as error:  # a null byte in the name
        raise PictureError(f"{name} is not a file name", "check the path") from error


def may_be_listed(folder: Path | str) -> bool:
    """Return whether the names in a folder can be read."""
    try:
        with os.scandir(folder):
            return True
    except OSError:
        return False
