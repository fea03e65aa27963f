"""Whether a diffusion model can do what was chosen, asked before anything is loaded."""

from __future__ import annotations

from depthcli.choices.clips import ClipChoice, DiffusionChoice
from depthcli.choices.model import ModelChoice
from depthcli.errors import UsageError
from depthcli.zoo.licences import check_usable
from depthcli.zoo.rows import DEPTHCRAFTER, find_row, is_row


def check_diffusion(choice: ModelChoice, clip: ClipChoice) -> None:
    """Raise UsageError for settings that this model does not have, ModelError if it cannot be used."""
    row = find_row(choice.model) if choice.model is not None and is_row(choice.model) else None
    if row is None or row.family != DEPTHCRAFTER:
        other = [name for name, value in vars(clip.diffusion).items() if value != getattr(DiffusionChoice(), name)]
        if other:
            raise UsageError(f"`{other[0]}` is for `model` {DEPTHCRAFTER}", "leave it out, or set `model`")
        return
    given = {
        "steady": (clip.steady != "auto", "leave it out: its windows are steady without a filter"),
        "input_size": (clip.input_size is not None, "set `max_res`, the bound of its longer side"),
        "panorama": (clip.panorama, "leave it out, or choose another model"),
        "batch": (clip.batch != 1, "set `window`, the frames it takes at once"),
        "backend": (clip.backend.backend not in ("auto", "torch"), "leave it out: torch runs it"),
    }
    for name, (is_given, way) in given.items():
        if is_given:
            raise UsageError(f"`{name}` is not for {row.name}", way)
    check_usable(row, choice.accept_licence)
