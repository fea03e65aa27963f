"""Walk a folder and all folders below it, also through links: each folder once, never in a circle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from depthcli.io.pictures.files import may_be_listed

# A walked folder, an unreadable one, a hidden one, and a link to a folder that is walked already.
WALKED, CLOSED, HIDDEN, LINK = "walked", "closed", "hidden", "link"


def walk(folder: Path, skip: Path | None = None) -> Iterator[tuple[str, Path, list[str]]]:
    """Yield (kind, path, names of its files) for a readable folder and the folders and links below it.

    Only WALKED folders have files. Links come last, so that a folder below `folder` keeps its name.
    skip: a folder not to enter.
    """
    entered = {os.path.realpath(folder)}
    # With the real paths of the folders that the walk came through: `folder`, and the targets of links.
    waiting = [(folder, tuple(entered))]
    links: list[tuple[Path, tuple[str, ...]]] = []
    while waiting:
        start, way = waiting.pop(0)
        for root, folders, names in os.walk(start):
            here = Path(root)
            yield WALKED, here, names
            below = [here / name for name in sorted(folders)]
            folders[:] = []
            for path in below:
                if path.name.startswith("."):
                    yield HIDDEN, path, []
                elif skip is not None and os.path.realpath(path) == os.path.realpath(skip):
                    continue
                elif path.is_symlink():
                    links.append((path, way))
                elif not may_be_listed(path):
                    yield CLOSED, path, []
                elif (place := os.path.realpath(path)) not in entered:
                    entered.add(place)
                    folders.append(path.name)
        while links and not waiting:
            link, way = links.pop(0)
            target = os.path.realpath(link)
            above = any(os.path.join(place, "").startswith(os.path.join(target, "")) for place in way)
            if above or target in entered:
                yield LINK, link, []
            elif may_be_listed(link):
                entered.add(target)
                waiting.append((link, (*way, target)))
            else:
                yield CLOSED, link, []
