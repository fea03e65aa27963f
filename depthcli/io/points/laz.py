"""LAZ and LAS files of points (ASPRS LAS 1.4, point format 7), by laspy: the extra [las].

Places are integers of a tenth of a millimetre, colours have 16 bits, and normals have no place. Our facts stand in a
variable-length record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import IO, Any

import numpy as np

from depthcli.errors import UsageError
from depthcli.geometry.solids import PointCloud
from depthcli.io.points.layout import cloud_of, parse_remarks, remarks

MAGIC = b"LASF"
_STEP = 1e-4  # in the unit of the points
_MOST = 2**31 * _STEP
_OWNER, _RECORD = "depthcli", 1
_FULL = 257  # 16-bit codes of an 8-bit level


def write_laz(cloud: PointCloud, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    """Write points with their colours. Raises UsageError for places that LAS cannot hold, or without laspy."""
    laspy = load_laspy()
    if len(cloud.points) and np.abs(cloud.points).max() >= _MOST:
        raise UsageError(f"LAZ holds places up to {_MOST:.0f}", "leave out what is `farthest`")
    header = laspy.LasHeader(version="1.4", point_format=7)
    header.scales, header.offsets = np.full(3, _STEP), np.zeros(3)
    header.generating_software, header.creation_date = "depthcli", None
    text = "\n".join(remarks(cloud.axes, cloud.unit, facts)).encode()
    header.vlrs.append(laspy.VLR(_OWNER, _RECORD, "facts", text))
    las = laspy.LasData(header)
    las.x, las.y, las.z = cloud.points.T.astype(np.float64)
    if cloud.colors is not None:
        las.red, las.green, las.blue = cloud.colors.T.astype(np.uint16) * _FULL
    whole = BytesIO()  # laspy closes what it writes to
    with _laz_errors():
        las.write(whole, do_compress=True)
    target.write(whole.getbuffer())


def read_laz(data: bytes) -> PointCloud:
    """Return the points in a LAS or LAZ file. Raises ValueError, and UsageError without laspy."""
    with _laz_errors():
        las = load_laspy().read(BytesIO(data))
        columns = {axis: np.asarray(las[axis], np.float64) for axis in ("x", "y", "z")}
        names = set(las.point_format.dimension_names)
        columns.update({name: np.asarray(las[name]) for name in ("red", "green", "blue") if name in names})
        return cloud_of(columns, _lines(las.header))


def read_laz_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in a file, empty if they are not ours. Raises ValueError, and UsageError without laspy."""
    with _laz_errors(), load_laspy().open(stream, closefd=False) as reader:
        return parse_remarks(_lines(reader.header))[0]


def _lines(header: Any) -> list[str]:
    texts = [vlr.record_data_bytes() for vlr in header.vlrs if (vlr.user_id, vlr.record_id) == (_OWNER, _RECORD)]
    return texts[0].decode().splitlines() if texts else []


@contextlib.contextmanager
def _laz_errors() -> Iterator[None]:
    """Turn the errors of laspy and lazrs, which have no base in common, into ValueError."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise ValueError(" ".join(str(error).split())[:160] or type(error).__name__) from error


def is_laz_cut_short(data: bytes, size: int) -> bool:
    """Return whether a file, of which the first bytes and the size are known, lacks its table of chunks, at its end."""
    start = int.from_bytes(data[96:100], "little")
    if len(data) < start + 8:
        return True
    table = int.from_bytes(data[start : start + 8], "little", signed=True)
    return table + 8 > size


def load_laspy() -> Any:
    """Return laspy. Raises UsageError if it is not installed."""
    try:
        import laspy
        import lazrs  # noqa: F401  laspy compresses with it
    except ImportError as error:
        raise UsageError(f"LAZ needs laspy: {error}", 'pip install "depthcli[las]" (Python 3.10 or later)') from None
    return laspy
