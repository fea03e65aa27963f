"""Find the control groups (cgroups) that limit this process in a container, under SLURM or systemd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Optional

_ROOT = "/sys/fs/cgroup"
_LONGEST = 64  # levels; systemd makes 5


def group_folders(controller: str) -> list[str]:
    """Return the folders of the groups that may limit this process, of both versions, the narrowest first.

    controller: "memory" or "cpu". A container does not see the groups above its root, which is used if the place of the
    process is unknown.
    """
    folders = []
    for kind, mount, root in _mounts(controller):
        inside = _places(controller).get(kind, "/")
        if root != "/" and (inside + "/").startswith(root + "/"):
            inside = inside[len(root) :]
        parts = [part for part in inside.split("/") if part]
        if ".." in parts:  # out of this namespace
            parts = []
        folders += ["/".join((mount, *parts[:count])) for count in range(min(len(parts), _LONGEST), -1, -1)]
    return list(dict.fromkeys(folders))


def read_number(path: str) -> Optional[int]:
    """Return the number in a file of a group, None if the file is missing or holds something else ("max")."""
    try:
        with open(path, encoding="ascii") as stream:
            return int(stream.read())
    except (OSError, ValueError):
        return None


def _mounts(controller: str) -> Iterator[tuple[str, str, str]]:
    """Yield (version "v1" or "v2", mount point, group at its root)."""
    found = False
    for line in _lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, system = before.split(), after.split()
        if len(fields) < 5 or not system or not system[0].startswith("cgroup"):
            continue
        if system[0] == "cgroup2" or controller in system[-1].split(","):
            found = True
            yield "v2" if system[0] == "cgroup2" else "v1", fields[4], fields[3].rstrip("/") or "/"
    if not found:
        yield "v2", _ROOT, "/"
        yield "v1", f"{_ROOT}/{controller}", "/"


def _places(controller: str) -> Mapping[str, str]:
    places = {}
    for line in _lines("/proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if number == "0" and not controllers:
            places["v2"] = place.rstrip()
        elif controller in controllers.split(","):
            places["v1"] = place.rstrip()
    return places


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read().splitlines()
    except OSError:
        return []
