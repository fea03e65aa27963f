"""The JSON of a picture's objects: what was measured, in a schema that other programs can rely on.

Metres have four decimals. Of relative depth `nearness` and `rank` alone are told: its metres, ratios and sizes are
unknown, so their keys hold null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from depthcli.camera import describe_camera
from depthcli.depthmap import DepthMap
from depthcli.io.masks import rle
from depthcli.io.masks.files import SCHEMA
from depthcli.io.masks.found import ObjectMask
from depthcli.objects.measure import Measured, measure
from depthcli.objects.order import Hiding, hidings, ranks
from depthcli.version import __version__

_DIGITS = 4


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a picture, in the order of a choice.

    masks, measured, ranks: of each object. hidings: pairs of places in the list. depth: at the picture's size.
    """

    masks: tuple[ObjectMask, ...]
    measured: tuple[Measured, ...]
    ranks: tuple[Optional[int], ...]
    hidings: tuple[Hiding, ...]
    depth: DepthMap
    trim: float

    def __len__(self) -> int:
        return len(self.masks)

    def near_to_far(self) -> list[int]:
        """Return the places in the list, nearest first; those without depth come last."""
        last = len(self.masks)
        return sorted(range(last), key=lambda place: (last if self.ranks[place] is None else self.ranks[place], place))


def objects_in(masks: Sequence[ObjectMask], depth: DepthMap, trim: float, sort: str = "distance") -> Objects:
    """Return the measured objects of a picture. depth: at the size of the masks. trim: pixels left out along edges.

    sort: distance (nearest first, those without depth last), score, area or label. Raises ValueError for a mask without
    pixels or of another size.
    """
    if any(item.mask.shape != depth.values.shape for item in masks):
        raise ValueError("masks and depth have different sizes")
    measured = [measure(item, depth, trim) for item in masks]
    order = ranks(measured, depth.kind.near_is_high)
    keys: dict[str, Any] = {
        "distance": lambda place: len(masks) if order[place] is None else order[place],
        "score": lambda place: -_score(masks[place]),
        "area": lambda place: -measured[place].area,
        "label": lambda place: masks[place].name,
    }
    places = sorted(range(len(masks)), key=keys[sort])
    measured = [measured[place] for place in places]
    return Objects(
        tuple(masks[place] for place in places),
        tuple(measured),
        tuple(order[place] for place in places),
        tuple(hidings(measured, depth, trim)),
        depth,
        trim,
    )


def _score(item: ObjectMask) -> float:
    return 1.0 if item.score is None else item.score


def document_of(
    found: Objects, picture: Mapping[str, Any], masks: Mapping[str, Any], more: Optional[Mapping[str, Any]] = None
) -> dict[str, Any]:
    """Return the JSON of a picture. picture: facts about its file. masks: facts about where they came from.

    more: further facts, such as the number of a frame.
    """
    depth = found.depth
    made = depth.provenance
    return {
        "schema": SCHEMA,
        "depthcli": __version__,
        **(more or {}),
        "picture": {**picture, "size": list(depth.size)},
        "depth": {
            "kind": depth.kind.value,
            "unit": depth.kind.unit,
            "model": made.model or None,
            "weights": made.sha256 or None,
            "file": made.converted[0] if made.converted else None,
        },
        "masks": {**masks, "trim": round(found.trim, 2)},
        "camera": None if depth.camera is None else describe_camera(depth.camera, depth.size),
        "objects": [_object(found, place) for place in range(len(found))],
        "hides": [
            {"front": pair.front, "back": pair.back, "log_ratio": _rounded(pair.log_ratio)} for pair in found.hidings
        ],
    }


def _object(found: Objects, place: int) -> dict[str, Any]:
    item, was = found.masks[place], found.measured[place]
    bounds = was.region.bounds if item.box is None else item.box
    p5, p25, p75, p95 = was.percentiles or (None,) * 4
    return {
        "id": place,
        "rank": found.ranks[place],
        **({} if item.track is None else {"track": item.track}),
        "label": item.label or None,
        "class": item.class_id,
        "score": _rounded(item.score),
        "box": [round(float(side), 2) for side in bounds],
        "mask": rle.encode(item.mask),
        "area": was.area,
        "nearness": _rounded(was.nearness),
        "distance": _rounded(was.distance),
        "nearest": _rounded(was.nearest),
        "nearest_at": None if was.nearest_at is None else list(was.nearest_at),
        "p5": _rounded(p5),
        "p25": _rounded(p25),
        "p75": _rounded(p75),
        "p95": _rounded(p95),
        "mad": _rounded(was.mad),
        "known": _rounded(was.known),
        "n": was.n,
        "position": None if was.position is None else [_rounded(side) for side in was.position],
        "range": _rounded(was.range),
        "width": _rounded(was.width),
        "height": _rounded(was.height),
        "flags": list(was.flags),
    }


def _rounded(number: Optional[float]) -> Optional[float]:
    return None if number is None else round(float(number), _DIGITS)


# --- Tables of many pictures ------------------------------------------------------------------------------------------

COLUMNS = (
    *("picture", "frame", "id", "track", "rank", "label", "class", "score", "left", "top", "right", "bottom", "area"),
    *("nearness", "distance", "nearest", "nearest_u", "nearest_v", "p5", "p25", "p75", "p95", "mad", "known", "n"),
    *("x", "y", "z", "range", "width", "height", "flags"),
)


def table_rows(document: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield a row of COLUMNS for each object of a document; None where nothing is known."""
    for row in document["objects"]:
        plain = dict(row)
        plain.update(zip(("left", "top", "right", "bottom"), row["box"]))
        plain.update(zip(("nearest_u", "nearest_v"), row["nearest_at"] or ()))
        plain.update(zip(("x", "y", "z"), row["position"] or ()))
        plain["flags"] = "; ".join(row["flags"])
        plain["picture"], plain["frame"] = document["picture"]["path"], document.get("frame")
        yield [plain.get(name) for name in COLUMNS]


def coco_of(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return documents as one COCO file; what was measured stands under the key `depth` of each annotation."""
    numbers = _categories(documents)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, document in enumerate(documents, 1):
        width, height = document["picture"]["size"]
        frame = document.get("frame")
        name = document["picture"]["path"]
        images.append(
            {
                "id": number,
                "file_name": name if frame is None else f"{name}#{frame}",
                "width": width,
                "height": height,
                "depth": {**document["depth"], "camera": document["camera"]},
            }
        )
        for row in document["objects"]:
            annotations.append(_annotation(row, len(annotations) + 1, number, numbers[_class_of(row)]))
    categories = [{"id": number, "name": label} for (label, _), number in numbers.items()]
    return {
        "info": {"description": f"objects with depth, {SCHEMA}", "version": __version__},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


_MEASURES = COLUMNS[COLUMNS.index("nearness") :]
_SPLIT = ("nearest_u", "nearest_v", "x", "y", "z")


def _annotation(row: Mapping[str, Any], number: int, image: int, category: int) -> dict[str, Any]:
    height, width = row["mask"]["size"]
    left, top, right, bottom = row["box"]
    names = [*(name for name in _MEASURES if name not in _SPLIT), "rank", "nearest_at", "position"]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": {"size": [height, width], "counts": row["mask"]["counts"]},
        "area": row["area"],
        "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
        "iscrowd": 0,
        **({} if row["score"] is None else {"score": row["score"]}),
        **({"track_id": row["track"]} if "track" in row else {}),
        "depth": {name: row[name] for name in names},
    }


def _class_of(row: Mapping[str, Any]) -> tuple[str, Optional[int]]:
    number = row["class"]
    return str(row["label"] or ("object" if number is None else f"class {number}")), number


def _categories(documents: Sequence[Mapping[str, Any]]) -> dict[tuple[str, Optional[int]], int]:
    """Return a number for each class: its own, or a free one."""
    classes = dict.fromkeys(_class_of(row) for document in documents for row in document["objects"])
    taken: set[int] = set()
    numbers: dict[tuple[str, Optional[int]], int] = {}
    for item in sorted(classes, key=lambda each: (each[1] is None, each[1] or 0, each[0])):
        own = item[1]
        if own is None or own in taken:
            own = max(taken, default=0) + 1
        taken.add(own)
        numbers[item] = own
    return numbers
