"""Options that commands share, and options made from a configuration model.

A model's fields are the one source of a command's options: name, type, default and help come from it. Only options that
were typed reach the command, so that a file (`--config`) can stand between the defaults and the command line.
"""

import inspect
import sys
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import BeforeValidator, ValidationError
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from schemas.config import Config
from schemas.errors import ConfigError
from schemas.recipe import Recipe


def _store_folder(text: str | Path) -> Path:
    """Give the folder of a store; a URL leads to its mirror on this machine."""
    from schemas.remote import folder_of, remote_of

    folder = folder_of(text)
    if remote := remote_of(folder):
        remote.said = partial(print, file=sys.stderr)
    return folder


StoreOption = Annotated[
    Path,
    typer.Option(
        "--store",
        envvar="SFT_STORE",
        parser=_store_folder,
        metavar="DIR|URL",
        help="Folder of the store, made on first use; or a place in object storage, such as s3://BUCKET/PREFIX.",
        show_default=True,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
MessageOption = Annotated[str | None, typer.Option("--message", "-m", help="A line for the version's log.")]
ConfigFileOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with these settings; typed options stand above it.")
]
RefArgument = Annotated[
    str, typer.Argument(metavar="REF", help="NAME (latest), NAME@7, NAME@tag, or a manifest's path.")
]

DEFAULT_STORE = Path("sft-data")

C = TypeVar("C", bound=Config)


def was_typed(context: typer.Context, option: str) -> bool:
    """Whether an option stands in the command itself; defaults and the environment give way to what was saved."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def config_options(
    model: type[Config], parameter: str = "given", *, without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per field of a model; the typed ones arrive in `parameter`, as name -> value.

    `without`: fields that the command sets itself.
    """
    fields = {name: field for name, field in model.model_fields.items() if name not in without}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function)
        own = [p for name, p in signature.parameters.items() if name != parameter]
        options = [_option(name, field) for name, field in fields.items()]

        def command(**arguments: Any) -> None:
            typed = {name: arguments.pop(name) for name in fields}
            given = {name: value for name, value in typed.items() if value not in (None, [])}
            function(**arguments, **{parameter: given})

        command.__name__, command.__doc__, command.__module__ = function.__name__, function.__doc__, function.__module__
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *options]]
        command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess] # read by Typer
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """Make the option of one field. Its default is None, "not typed"; the help shows the field's own default."""
    flag = f"--{name.replace('_', '-')}"
    kind = _plain_type(field.annotation)
    names = [f"{flag}/--no-{flag[2:]}"] if kind is bool else [flag]
    bounds = _bounds(field)
    text = " ".join((field.description or "").split()) + (f" ({bounds})" if bounds else "")
    shown = _shown(field.default)
    option = typer.Option(*names, help=f"{text} [default: {shown}]" if shown else text, show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def in_sections(starts: Mapping[str, str]) -> type[TyperCommand]:
    """Give a class of commands whose help lists its options in sections; each begins at the option that `starts` names.

    Options before the first of them stand under "Options".
    """

    class Sectioned(TyperCommand):
        def format_options(self, ctx: Any, formatter: Any) -> None:
            sections: dict[str, list[tuple[str, str]]] = {}
            title = "Options"
            for parameter in self.get_params(ctx):
                title = starts.get(str(parameter.name), title if parameter.name != "help" else "Options")
                if (record := parameter.get_help_record(ctx)) is not None:
                    sections.setdefault(title, []).append(record)
            for name, records in sections.items():
                with formatter.section(name):
                    formatter.write_dl(records)

    return Sectioned


def _limits(bound: object) -> dict[str, Any]:
    """Give the limits that a piece of field metadata states."""
    return {k: getattr(bound, k) for k in ("ge", "gt", "le", "lt") if getattr(bound, k, None) is not None}


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(f"{signs[k]} {v:g}" for m in field.metadata for k, v in _limits(m).items())


def _plain_type(annotation: Any) -> Any:
    """Give the type that Typer parses: without None and Annotated; a tuple of values becomes a repeated option."""
    origin = get_origin(annotation)
    if origin is Annotated:
        reads_words = any(isinstance(note, BeforeValidator) for note in get_args(annotation))  # such as 5M
        return str if reads_words else _plain_type(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return _plain_type(next(a for a in get_args(annotation) if a is not NoneType))
    if origin is tuple:
        element = _plain_type(get_args(annotation)[0])
        return list[str if get_origin(element) is Literal else element]  # Typer has no lists of choices
    return annotation if origin is Literal or isinstance(annotation, type) else str


def _shown(default: Any) -> str:
    if default is None or default in ((), ""):
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, dict):
        return ",".join(f"{name}={value:g}" for name, value in default.items())  # pyright: ignore[reportUnknownVariableType] # weights
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)  # pyright: ignore[reportUnknownArgumentType] # any tuple


def read_settings(file: Path, table: str) -> dict[str, Any]:
    """Read settings from a TOML file: its table of that name where it has one (a recipe does), else the whole file."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except OSError as error:
        raise ConfigError(f"config {file}", error.strerror or str(error), "a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {file}", f"not TOML ({error})", "lines such as `name = value`") from error
    found: Any = values.get(table, values)
    if not isinstance(found, dict):
        raise ConfigError(f"config {file}", f"{table} is not a table", f"[{table}] and lines such as `name = value`")
    beside = [name for name, value in values.items() if not isinstance(value, dict) and name not in Recipe.model_fields]
    if table in values and beside:
        raise ConfigError(f"config {file}", f"{', '.join(beside)} outside of [{table}]", f"all settings in [{table}]")
    return found


def build(model: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Make a configuration; raise ConfigError that names every value that cannot be."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        parts = [_problem(model, e["loc"], e["type"], e["msg"], e.get("input")) for e in error.errors()]
        raise ConfigError(where, "; ".join(parts), remedy="see --help for what each value may be") from error


def _problem(model: type[Config], loc: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    if kind == "extra_forbidden":  # a key of a file: there is no such option
        near = get_close_matches(str(loc[0]).replace("-", "_"), model.model_fields, n=1) if len(loc) == 1 else []
        return f"{'.'.join(map(str, loc))}: no such setting" + (f" (there is {near[0]})" if near else "")
    name = "--" + str(loc[0]).replace("_", "-") if loc else "settings"
    shown = f" {value}" if loc and not isinstance(value, dict) else ""
    said = f"should be a list, such as [{value!r}]" if kind == "tuple_type" else message.removeprefix("Value error, ")
    return f"{name}{shown}: {said[0].lower()}{said[1:]}"
