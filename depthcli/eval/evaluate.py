"""Score predictions against the truths of a list: one Score per picture, and their means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import DepthError, DiskFullError, PictureError, first_line
from depthcli.eval import metrics, panels
from depthcli.eval.alignment import AUTO, Alignment, align, protocol
from depthcli.eval.lists import Entry
from depthcli.eval.metrics import Figures
from depthcli.eval.truth import Truth, read_truth
from depthcli.io.pictures.images import Picture, read_picture
from depthcli.pixels.postprocess import resize_bilinear
from depthcli.version import __version__

SCHEMA = "depthcli-eval/1"
# Returns the prediction, of any size, for an entry and its picture; raises DepthError if there is none.
Predict = Callable[[Entry, Picture], DepthMap]
_SAME_VIEW = 0.02  # largest difference of proportions of one view: small sizes are rounded


@dataclass(frozen=True)
class Score:
    """The metrics of one entry, or its error.

    figures: empty if it failed. known, elements: known elements of the truth, and all inside the crop. pairs: number of
    point pairs. kind, provenance: of the prediction. alignment: None without a truth. error: one line, or empty; code:
    its exit code.
    """

    entry: Entry
    figures: Figures = field(default_factory=Figures)
    kind: DepthKind | None = None
    provenance: Provenance = field(default_factory=Provenance)
    alignment: Alignment | None = None
    known: int = 0
    elements: int = 0
    pairs: int = 0
    error: str = ""
    code: int = 0


@dataclass(frozen=True, eq=False)
class Compared:
    """A prediction beside its truth, both inside the entry's crop.

    size: (width, height) of the whole truth. aligned: (H, W) depth in the truth's unit.
    """

    entry: Entry
    picture: Picture
    size: tuple[int, int]
    aligned: np.ndarray
    truth: Truth

    def inside(self, values: np.ndarray) -> np.ndarray:
        """Return the part inside the crop of (H, W, ...) values at the size of the whole truth."""
        top, left, bottom, right = self.entry.crop or (0, 0, self.size[1], self.size[0])
        return values[top:bottom, left:right]

    def panels(self) -> np.ndarray:
        """Return photo, prediction, truth and error side by side; see `error_panels`."""
        photo = self.inside(panels.resized_photo(self.picture.rgb, self.size))
        return panels.error_panels(photo, self.aligned, self.truth)


def evaluate(
    entries: Sequence[Entry],
    predict: Predict,
    alignment: str = AUTO,
    errors: Path | None = None,
    watch: Callable[[Compared], None] | None = None,
) -> Iterator[Score]:
    """Yield one Score per entry, in order; a failed entry has its error, and the rest goes on.

    A prediction of another size is resized to the truth's, bilinear with the corners aligned; the truth never is.
    alignment: one of ALIGNMENTS. errors: a folder for one error picture each, NAME_error.png. watch: takes each
    prediction that is compared with a truth. Raises DiskFullError if no more error pictures can be
    written.
    """
    for entry in entries:
        try:
            score = _score(entry, predict, alignment, errors, watch)
        except DiskFullError:
            raise
        except Exception as error:  # whatever a library raises for one picture, the others are scored
            score = _failed(entry, error)
        yield score


def _score(
    entry: Entry,
    predict: Predict,
    alignment: str,
    errors: Path | None,
    watch: Callable[[Compared], None] | None,
) -> Score:
    picture = read_picture(entry.picture)
    truth = known_truth(entry, picture.size)
    _check_pairs(entry, picture)
    depth = predict(entry, picture)
    _check_view("the prediction", depth.size, picture.size)
    pairs = None
    if entry.pairs:
        pairs = metrics.pair_accuracy(_nearness(resize_bilinear(depth.values, picture.size), depth.kind), entry.pairs)
    score = Score(entry, Figures(pairs=pairs), depth.kind, depth.provenance, pairs=len(entry.pairs))
    if truth is None:
        return score

    top, left, bottom, right = entry.crop or (0, 0, truth.size[1], truth.size[0])
    size, truth = truth.size, truth.crop(top, left, bottom, right)
    values = resize_bilinear(depth.values, size)[top:bottom, left:right]
    aligned, done = align(values, depth.kind, truth, alignment, entry.min_depth, entry.max_depth)
    known = truth.known
    nearness = truth.disparity[known]
    figures = Figures(
        **metrics.errors(aligned[known], truth.depth[known], truth.metres),
        spearman=metrics.spearman(_nearness(values, depth.kind)[known], nearness),
        prior=metrics.spearman(np.nonzero(known)[0], nearness),
        pairs=pairs,
        boundary_f1=metrics.boundary_f1(aligned, truth.depth),
    )
    compared = Compared(entry, picture, size, aligned, truth)
    if errors is not None:
        panels.write_panels(compared.panels(), errors / f"{entry.name}_error.png")
    if watch is not None:
        watch(compared)
    return replace(score, figures=figures, alignment=done, known=int(known.sum()), elements=known.size)


def known_truth(entry: Entry, picture_size: tuple[int, int]) -> Truth | None:
    """Return the truth of an entry at its full size, NaN outside its crop and its limits; None if it has none.

    picture_size: (width, height) of the upright picture. Raises PictureError if the file cannot be read or does not fit
    the picture, the crop or the limits, OutputError as `read_truth`.
    """
    if entry.truth is None:
        return None
    truth = read_truth(entry.truth, entry.format, entry.scale, entry.invalid)
    width, height = truth.size
    _check_view("the truth", truth.size, picture_size)
    top, left, bottom, right = entry.crop or (0, 0, height, width)
    if bottom > height or right > width:
        crop = [top, left, bottom, right]
        raise PictureError(f"crop {crop} reaches beyond the truth's {height} rows and {width} columns")
    counts = np.zeros((height, width), bool)
    counts[top:bottom, left:right] = True
    if entry.min_depth is not None or entry.max_depth is not None:
        if not truth.metres:
            raise PictureError(f"{entry.truth} is not in metres, as min_depth and max_depth are", "leave these out")
        depth = np.where(truth.known, truth.values, 0)
        counts &= (depth >= (entry.min_depth or 0)) & (depth <= (entry.max_depth or np.inf))
    return Truth(np.where(counts, truth.values, np.nan), truth.kind)


def _check_view(what: str, size: tuple[int, int], picture_size: tuple[int, int]) -> None:
    (width, height), (wide, high) = size, picture_size
    if abs(width * high - wide * height) > _SAME_VIEW * wide * height:
        raise PictureError(f"{what} is {width}x{height} and the picture {wide}x{high}: these are not one view")


def _check_pairs(entry: Entry, picture: Picture) -> None:
    width, height = picture.size
    for pair in entry.pairs:
        if any(row >= height or column >= width for row, column in pair):
            raise PictureError(f"the pair {[list(point) for point in pair]} leaves the picture of {width}x{height}")


def _nearness(values: np.ndarray, kind: DepthKind) -> np.ndarray:
    return values if kind.near_is_high else -values


def _failed(entry: Entry, error: Exception) -> Score:
    text, code = reason_of(error)
    return Score(entry, error=text, code=code)


def reason_of(error: Exception) -> tuple[str, int]:
    """Return why something could not be scored, one line, and its exit code."""
    if isinstance(error, MemoryError):  # while reading or comparing; a backend reports its own
        error = PictureError("not enough memory", "end other programs, or use smaller pictures")
    elif not isinstance(error, DepthError):
        error = PictureError(f"unexpected {type(error).__name__}: {first_line(error)}", "please report it")
    return " ".join(str(error).split()), error.exit_code


def mean(scores: Sequence[Score]) -> Figures:
    """Return the mean of each figure over the pictures that have it; `pairs` is the share of all pairs together."""
    means = {}
    for name in asdict(Figures()):
        given = [(getattr(score.figures, name), score) for score in scores]
        values = [value for value, _ in given if value is not None]
        weights = [score.pairs if name == "pairs" else 1 for value, score in given if value is not None]
        means[name] = float(np.average(values, weights=weights)) if values else None
    return Figures(**means)


def pictures_in_mean(scores: Sequence[Score]) -> dict[str, int]:
    """Return, by the name of each figure, how many pictures have it."""
    names = asdict(Figures())
    return {name: sum(getattr(score.figures, name) is not None for score in scores) for name in names}


def better_than_prior(scores: Sequence[Score]) -> tuple[int, int]:
    """Return how many pictures have a rank correlation above their prior's, and how many have both."""
    both = [(score.figures.spearman, score.figures.prior) for score in scores]
    wins = [found > prior for found, prior in both if found is not None and prior is not None]
    return sum(wins), len(wins)


def report(scores: Sequence[Score], alignment: str, source: dict[str, Any], total: int | None = None) -> dict[str, Any]:
    """Return everything as one JSON-ready dictionary.

    source: what predicted. total: number of entries in the list, if an interruption left some without a score.
    """
    total = len(scores) if total is None else total
    better, compared = better_than_prior(scores)
    failed = sum(bool(score.error) for score in scores)
    return {
        "schema": SCHEMA,
        "depthcli": __version__,
        "source": source,
        "align": alignment,
        "protocol": protocol(score.alignment for score in scores if score.alignment),
        "mean": asdict(mean(scores)),
        "pictures_in_mean": pictures_in_mean(scores),
        "better_than_prior": better,
        "compared_with_prior": compared,
        "summary": {"done": len(scores) - failed, "failed": failed, "total": total, "interrupted": len(scores) < total},
        "pictures": [_row(score) for score in scores],
    }


def _row(score: Score) -> dict[str, Any]:
    done = score.alignment
    return {
        "entry": score.entry.number,
        "name": score.entry.name,
        "picture": score.entry.source,
        "kind": score.kind and score.kind.value,
        "model": score.provenance.model,
        "weights_sha256": score.provenance.sha256,
        "align": done and done.method,
        "scale": done and done.scale,
        "shift": done and done.shift,
        "turned_over": done and done.turned_over,
        "known": score.known,
        "elements": score.elements,
        "pair_count": score.pairs,
        **asdict(score.figures),
        "error": score.error or None,
        "exit_code": score.code,
    }
