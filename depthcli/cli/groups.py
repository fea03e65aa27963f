"""Compose a command's options from groups: frozen dataclasses whose fields are options.

A command declares a keyword-only parameter per group and receives the group as one value:

    @grouped()
    def image(inputs: Inputs, *, model: ModelOptions, report: ReportOptions) -> None: ...
"""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import functools
import importlib
import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Callable, Optional, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from depthcli.cli.help import print_help

VIEWS, CLIP, TRAINING, MODEL = "Views", "Clip", "Training", "Model and speed"
DIFFUSION, CAMERA, METRES, SPACE = "Diffusion", "Camera", "Metres", "3D"
ACCESS, LIMITS, CLIPS = "Access", "Limits", "Clips and results"
NEURON, ADVANCED = "AWS Inferentia", "Advanced"
_PANELS = (
    None,
    ACCESS,
    VIEWS,
    CLIP,
    TRAINING,
    MODEL,
    DIFFUSION,
    CLIPS,
    LIMITS,
    CAMERA,
    METRES,
    SPACE,
    NEURON,
    ADVANCED,
)  # sections of the help, in the order a person needs them


def option(
    help: str,
    *names: str,
    panel: Optional[str] = None,
    metavar: Optional[str] = None,
    values: Sequence[str] = (),
    show_default: bool = False,
    variable: Optional[str] = None,
) -> Any:
    """Return the declaration of an option for `Annotated`.

    names: flags; the first is the one that messages use; none for the field's name with dashes. metavar: "" for a flag
    without a value. values: what the shell completes; empty completes paths. panel: section of the help.
    variable: of the environment, whose value counts if the option is not given.
    """
    return typer.Option(
        *names,
        help=help,
        metavar=metavar,
        rich_help_panel=panel,
        show_default=show_default,
        envvar=variable,
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

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the arguments and options, the option --help included."""
        return _read_quickly(super().get_params(ctx), self.callback)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        print_help(self, ctx)


class PlainGroup(TyperGroup):
    """A group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, --help included."""
        return _read_quickly(super().get_params(ctx), self.callback)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help. Commands that are not loaded yet stay so."""
        commands = self.commands
        print_help(self, ctx, commands.sentences() if isinstance(commands, LazyCommands) else _sentences(commands))


class LazyCommands(Mapping[str, Any]):
    """The commands of a group by name; a command's module is imported when the command is used.

    rows: {name: ("module:attribute", sentence of the help)}; the attribute is a function or a Typer app.
    """

    def __init__(self, rows: Mapping[str, tuple[str, str]]) -> None:
        self._rows = rows
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            module, _, attribute = self._rows[name][0].partition(":")
            self._made[name] = _command(name, getattr(importlib.import_module(module), attribute))
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def sentences(self) -> list[tuple[str, str]]:
        """Return (name, sentence) of each command."""
        return [(name, sentence) for name, (_, sentence) in self._rows.items()]


def _command(name: str, source: Any) -> Any:
    app = source
    if not isinstance(app, typer.Typer):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(name, cls=PlainCommand)(source)
    made = typer.main.get_command(app)
    made.name = name
    return made


def _read_quickly(parameters: list[Any], command: Any) -> list[Any]:
    """Return a command's parameters, which read plain values themselves from now on.

    Typer asks pydantic, which takes as long to load as NumPy. What needs a closer look is left to Typer: wrong numbers,
    missing arguments, values of other types.
    """
    new = [item for item in parameters if not isinstance(item.process_value, functools.partial)]
    hints = get_type_hints(command) if new else {}
    for item in new:
        hint = hints.get(item.name, bool)  # Typer's own options are flags
        kind = next((each for each in get_args(hint) if each is not type(None)), hint)
        item.process_value = functools.partial(_value, item, kind, item.process_value)
    return parameters


def _value(parameter: Any, kind: Any, typers: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    """Return the value of a parameter as the command takes it."""
    plural = parameter.nargs == -1 or parameter.multiple
    if not value and parameter.required:
        return typers(ctx, value)
    if value is None:
        found: Any = () if plural else None
    elif plural and isinstance(value, (list, tuple)) and all(type(item) is str for item in value):
        found = list(value)
    elif type(value) is str and kind in (str, Path):
        found = kind(value)
    elif type(value) is str and kind is int and re.fullmatch(r"[0-9]{1,9}", value):
        found = int(value)
    elif type(value) is kind:
        found = value
    else:
        return typers(ctx, value)
    return found if parameter.callback is None else parameter.callback(ctx, parameter, found)


def _sentences(commands: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, " ".join((command.help or "").partition("\n\n")[0].split())) for name, command in commands.items()]
