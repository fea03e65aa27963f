"""Models whose licence must be accepted before they are used, and the packages that a model needs beside the core's.

What was accepted is remembered in the user's cache folder, by model and licence.
"""

from __future__ import annotations

import importlib.util
from contextlib import suppress

from depthcli.errors import ModelError
from depthcli.zoo.digests import cache_folder, is_ours
from depthcli.zoo.rows import DEPTHCRAFTER, ModelRow

FILE = ".licences"
_EXTRAS = {DEPTHCRAFTER: ("diffusion", ("diffusers", "transformers", "accelerate"))}


class LicenceError(ModelError):
    """The licence of a model was not accepted."""


def check_usable(row: ModelRow, accept: bool = False) -> None:
    """Raise ModelError if a package of the row is missing, LicenceError if its licence was not accepted.

    accept: it is accepted now. Nothing is imported.
    """
    check_packages(row)
    check_licence(row, accept)


def check_packages(row: ModelRow) -> None:
    """Raise ModelError if a package of the row is missing. Nothing is imported."""
    extra, packages = _EXTRAS.get(row.family, ("", ()))
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ModelError(f"{row.name} needs {' and '.join(missing)}", f"pip install 'depthcli[{extra}]'")


def check_licence(row: ModelRow, accept: bool = False) -> None:
    """Raise LicenceError if the row's licence needs to be accepted and was not; remember that it was."""
    if not row.restricted:
        return
    line = f"{row.name}: {row.licence}"
    if line in _accepted():
        return
    if not accept:
        raise LicenceError(
            f"{row.title} may be used for {row.licence}, commercial use is not allowed",
            "if yours is, set `accept_licence` once",
        )
    folder = cache_folder()
    with suppress(OSError):  # it is asked for again
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / FILE, "a", encoding="utf-8") as stream:
                stream.write(f"{line}\n")


def _accepted() -> list[str]:
    folder = cache_folder()
    with suppress(OSError, ValueError):
        if folder is not None and is_ours(folder) and is_ours(folder / FILE):
            return (folder / FILE).read_text(encoding="utf-8").splitlines()
    return []
