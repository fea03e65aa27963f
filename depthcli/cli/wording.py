"""Settings as flags: the library names `input_size`, a terminal shows --input-size."""

from __future__ import annotations

from functools import cache

from depthcli.errors import word_settings


def worded(text: str) -> str:
    """Return a text of the library with its settings as flags."""
    return word_settings(text, lambda name: flags().get(name, f"`{name}`")) if "`" in text else text


@cache
def flags() -> dict[str, str]:
    """Return the flag of every setting, which is the first name of the option that is called like it."""
    import typer

    from depthcli.cli.app import app

    found: dict[str, str] = {}
    commands = list(typer.main.get_command(app).commands.values())  # type: ignore[attr-defined]
    for command in commands:
        commands += getattr(command, "commands", {}).values()  # of a group, behind all others
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name:
                found.setdefault(parameter.name, parameter.opts[0])
    return found
