"""Compose a command's options from groups: frozen dataclasses whose fields are options.

A command declares a keyword-only parameter per group and receives the group as one value:

    @grouped()
    def image(inputs: Inputs, *, model: ModelOptions, report: ReportOptions) -> None: ...
"""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import functools
import inspect
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Callable, Optional

import typer
from typer.core import TyperCommand

CLIP, MODEL, NEURON, ADVANCED = "Clip", "Model and speed", "AWS Inferentia", "Advanced"
_PANELS = (None, CLIP, MODEL, NEURON, ADVANCED)  # sections of the help, in the order a person needs them


def option(
    help: str,
    *names: str,
    panel: Optional[str] = None,
    metavar: Optional[str] = None,
    values: Sequence[str] = (),
    show_default: bool = False,
) -> Any:
    """Return the declaration of an option for `Annotated`.

    names: flags; the first is the one that messages use; none for the field's name with dashes. metavar: "" for a flag
    without a value. values: what the shell completes; empty completes paths. panel: section of the help.
    """
    return typer.Option(
        *names,
        help=help,
        metavar=metavar,
        rich_help_panel=panel,
        show_default=show_default,
        autocompletion=completer(values) if values else None,
    )


def flag(help: str, *names: str, panel: Optional[str] = None) -> Any:
    """Return the declaration of an option that takes no value."""
    return option(help, *names, panel=panel, metavar="")


def completer(values: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a completion callback for one of the values, or a list of them with commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        taken = before.split(",")
        return [before + comma + value for value in values if value.startswith(last) and value not in taken]

    return complete


def grouped(without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of its groups, as Typer reads them from a signature.

    without: options that the command does not offer. The command's parameter may replace a group's default.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own, groups = [], {}
        for parameter in inspect.signature(command).parameters.values():
            if is_dataclass(parameter.annotation):
                groups[parameter.name] = parameter
            else:
                own.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for group in groups.values()
            for name, annotation, default in _options(group.annotation, _default(group))
            if name not in without
        ]

        every = sorted([*own, *shared], key=_panel)

        @functools.wraps(command)
        def wrapper(**values: Any) -> None:
            given = {item.name: values.pop(item.name) for item in own}
            made = {name: _build(group.annotation, _default(group), values) for name, group in groups.items()}
            command(**given, **made)

        wrapper.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {item.name: item.annotation for item in every}
        return wrapper

    return decorate


def _panel(parameter: inspect.Parameter) -> int:
    (declared,) = parameter.annotation.__metadata__
    return _PANELS.index(declared.rich_help_panel)


def _default(parameter: inspect.Parameter) -> Any:
    return parameter.annotation() if parameter.default is inspect.Parameter.empty else parameter.default


def _options(group: Any, defaults: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, annotation, default) of each option of a group, whose fields may be groups."""
    for field in fields(group):
        default = getattr(defaults, field.name)
        if is_dataclass(field.type):
            yield from _options(field.type, default)
        else:
            yield field.name, field.type, default


def _build(group: Any, defaults: Any, values: dict[str, Any]) -> Any:
    made = {}
    for field in fields(group):
        default = getattr(defaults, field.name)
        if is_dataclass(field.type):
            made[field.name] = _build(field.type, default, values)
        else:
            made[field.name] = values.get(field.name, default)
    return group(**made)


class PlainCommand(TyperCommand):
    """A command whose usage line is `depth image FILE... [OPTIONS]`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the arguments, then the place of the options."""
        arguments = [item.metavar or item.name for item in self.params if item.param_type_name == "argument"]
        return [*arguments, "[OPTIONS]"]

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option --help, shown like the other options without a value."""
        found = super().get_help_option(ctx)
        if found is not None:
            found.metavar = ""
        return found
