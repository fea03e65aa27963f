"""A ring of scenes in shared memory: a generator process keeps replacing the oldest, the trainer draws at random.

python -m training.pool FOLDER --size 240 320 [--plain]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from training.pictures import Generator, Pictures
from training.scenes import STYLES


@dataclass(frozen=True)
class Pool:
    """colour: (C, 3, H, W) uint8; disparity: (C, H, W) float16; count: (1,) int64, scenes written so far."""

    colour: np.ndarray
    disparity: np.ndarray
    count: np.ndarray

    @property
    def filled(self) -> int:
        """Number of scenes that may be drawn."""
        return min(int(self.count[0]), len(self.colour))


def open_pool(folder: Path, capacity: int = 0, height: int = 0, width: int = 0) -> Pool:
    """Map the pool of a folder into memory; with a capacity it is made, unless one of these sizes lies there."""
    layout = folder / "pool.json"
    wanted = [capacity, height, width]
    fresh = capacity > 0 and not (layout.exists() and json.loads(layout.read_text()) == wanted)
    if fresh:
        folder.mkdir(parents=True, exist_ok=True)
        layout.unlink(missing_ok=True)  # or a trainer would open files of another size
    else:
        wanted = json.loads(layout.read_text())
    mode = "w+" if fresh else "r+"
    pool = Pool(
        np.memmap(folder / "colour.bin", np.uint8, mode, shape=(wanted[0], 3, *wanted[1:])),
        np.memmap(folder / "disparity.bin", np.float16, mode, shape=tuple(wanted)),
        np.memmap(folder / "count.bin", np.int64, mode, shape=(1,)),
    )
    if fresh:
        layout.write_text(json.dumps(wanted))
    return pool


def worth_learning(pictures: Pictures) -> torch.Tensor:
    """Leave out pictures of nothing but sky, of a bare wall, or of one surface right before the lens: (B,) bool.

    Not too many of them: a room of plain walls with a chair in it has few edges and is a common photograph.
    """
    flat = pictures.disparity[:, ::2, ::2].flatten(1)
    spread = (torch.quantile(flat, 0.95, 1) - torch.quantile(flat, 0.05, 1)) / flat.mean(1).clamp(min=1e-6)
    brightness = pictures.colour.flatten(1).float().std(1)
    log = pictures.disparity.clamp(min=1e-3).log()
    steps = ((log[:, :, 1:] - log[:, :, :-1]).abs() > 0.1).float().mean((1, 2))
    return ((flat == 0).float().mean(1) < 0.8) & (spread > 0.15) & (brightness > 8) & (steps > 0.001)


def put(pool: Pool, pictures: Pictures) -> int:
    """Write a batch over the oldest scenes; returns how many were worth it."""
    keep = worth_learning(pictures)
    colour, disparity = pictures.colour[keep].numpy(), pictures.disparity[keep]
    # Scaled so that half precision loses nothing: only ratios within a picture matter.
    disparity = (disparity / disparity.flatten(1).mean(1).clamp(min=1e-6).view(-1, 1, 1)).clamp(max=6e4)
    start, capacity = int(pool.count[0]), len(pool.colour)
    slots = (start + np.arange(len(colour))) % capacity
    pool.colour[slots], pool.disparity[slots] = colour, disparity.to(torch.float16).numpy()
    pool.count[0] = start + len(colour)
    return len(colour)


@dataclass(frozen=True)
class Filling:
    """How a pool is filled: scenes of height x width, share of wild cameras, number of scenes kept, random seed,
    whether the ray loop is compiled, seconds to rest after each batch."""

    height: int
    width: int
    wild: float
    capacity: int
    seed: int = 0
    compiled: bool = True
    pause: float = 0.0


def fill_forever(folder: Path, filling: Filling, report: int = 2000) -> None:
    """Generate scenes into the pool of a folder until killed."""
    torch.set_num_threads(1)
    pool = open_pool(folder, filling.capacity, filling.height, filling.width)
    torch.manual_seed(filling.seed + int(pool.count[0]))  # a resumed filling does not repeat itself
    generator = Generator(filling.height, filling.width, filling.compiled)
    shares = torch.tensor([style.share for style in STYLES])
    made, batches, began = 0, 0, time.time()
    while True:
        style = int(torch.multinomial(shares, 1))
        made += put(pool, generator.batch(32, style, filling.wild))
        batches += 1
        if batches % 200 == 0:
            generator.renew_textures()
        if made >= report:
            print(
                f"{time.strftime('%H:%M:%S')} {pool.count[0]} scenes, {made / (time.time() - began):.1f} a second",
                flush=True,
            )
            made, began = 0, time.time()
        time.sleep(filling.pause)


def _crop(pool: Pool, index: int, aspect: float, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random window of one scene with width / height = aspect: (3, h, w) and (h, w)."""
    height, width = pool.colour.shape[-2:]
    largest = min(height, width / aspect)
    tall = int(largest * draw.uniform(0.62, 1.0))
    wide = min(int(tall * aspect), width)
    top, left = draw.integers(0, height - tall + 1), draw.integers(0, width - wide + 1)
    window = (slice(top, top + tall), slice(left, left + wide))
    return pool.colour[index][(slice(None), *window)], pool.disparity[index][window]


def _levelness(disparity: np.ndarray) -> float:
    """Correlation of nearness with the row of a window (h, w): near 1 for a street, 0 for a wall straight ahead."""
    small = np.sqrt(disparity[::6, ::6].astype(np.float32))
    rows = np.linspace(-1, 1, len(small), dtype=np.float32)[:, None]
    spread = small.std() * np.sqrt((rows * rows).mean())
    return float((rows * (small - small.mean())).mean() / max(spread, 1e-6))


def draw_batch(
    pool: Pool, size: int, height: int, width: int, turned: float, draw: np.random.Generator, level: float = -1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A training batch: colour (B, 3, height, width) in [0, 1] and disparity (B, height, width).

    Every scene is cropped, resized (with and without smoothing, as photographs come), mirrored half of the time, and
    turned by a quarter, half or three quarters for a share `turned`. level: least _levelness of a window; photographs
    mostly show the floor they are taken from, and a network that shall serve on them must know how often.
    """
    colours, disparities = [], []
    for index in draw.integers(0, pool.filled, size):
        turn = int(draw.integers(1, 4)) if draw.random() < turned else 0
        target = (width, height) if turn % 2 else (height, width)
        colour, disparity = _crop(pool, int(index), target[1] / target[0], draw)
        while _levelness(disparity) < level:
            colour, disparity = _crop(pool, int(draw.integers(0, pool.filled)), target[1] / target[0], draw)
        colour = torch.from_numpy(colour.astype(np.float32))[None]
        disparity = torch.from_numpy(disparity.astype(np.float32))[None, None]
        colour = F.interpolate(
            colour, size=target, mode="bilinear", align_corners=False, antialias=bool(draw.random() < 0.5)
        )
        disparity = F.interpolate(disparity, size=target, mode="nearest")
        if draw.random() < 0.5:
            colour, disparity = colour.flip(-1), disparity.flip(-1)
        colours.append(torch.rot90(colour, turn, (2, 3)))
        disparities.append(torch.rot90(disparity, turn, (2, 3)))
    return recolour(torch.cat(colours) / 255, draw), torch.cat(disparities)[:, 0]


def recolour(colour: torch.Tensor, draw: np.random.Generator) -> torch.Tensor:
    """Other saturation, tint, tone, light and contrast for every picture of a batch (B, 3, H, W) in [0, 1]."""

    def random(low: float, high: float, channels: int = 1) -> torch.Tensor:
        values = draw.uniform(low, high, (len(colour), channels, 1, 1))
        return torch.from_numpy(values.astype(np.float32))

    grey = colour.mean(1, keepdim=True)
    colour = grey + (colour - grey) * random(-0.4, 1.3).clamp(min=0)
    if draw.random() < 0.3:
        colour = colour[:, torch.from_numpy(draw.permutation(3))]
    # Some negatives and bent tone curves: bright must not mean far.
    negative = torch.from_numpy((draw.random((len(colour), 1, 1, 1)) < 0.07).astype(np.float32))
    colour = colour + negative * (1 - 2 * colour)
    colour = colour.clamp(1e-3, 1) ** torch.exp(random(-0.7, 0.7))
    patches = torch.from_numpy(draw.normal(0.0, 1.0, (len(colour), 1, 4, 5)).astype(np.float32)) * random(0.0, 0.5)
    colour = colour * torch.exp(F.interpolate(patches, size=colour.shape[-2:], mode="bilinear", align_corners=True))
    # Over- and underexposed: a white wall is no sky.
    colour = (colour * torch.exp(random(-0.5, 0.6))).clamp(0, 1)
    level = colour.mean((1, 2, 3), keepdim=True)
    return ((colour - level) * random(0.7, 1.4) + level * random(0.75, 1.25, 3)).clamp(0, 1)


def main() -> None:
    """Fill a pool until killed, for a training that goes on from finished weights."""
    parser = argparse.ArgumentParser(description="Make scenes into a pool until killed.")
    parser.add_argument("folder", type=Path, help="folder of the pool, best in memory")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--wild", type=float, default=0.07, help="share of cameras pitched, and rolled, in any way")
    parser.add_argument("--capacity", type=int, default=16_000, help="scenes kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="do not compile the ray loop (no C++ compiler)")
    options = parser.parse_args()
    filling = Filling(*options.size, options.wild, options.capacity, options.seed, compiled=not options.plain)
    fill_forever(options.folder, filling)


if __name__ == "__main__":
    main()
