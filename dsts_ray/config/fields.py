"""Every field of the schema under its dotted key, with what it may hold and what it means."""

import ast
import dataclasses
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MinLen

from dsts_ray.config import schema

_BOUNDS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}
_NOUNS: dict[object, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
}


class ConfigField(NamedTuple):
    """One leaf of the configuration."""

    key: str
    """Dotted key, as in ``dsts.num_neurons``."""
    annotation: Any
    """Annotated type, with its allowed range."""
    default: object
    description: str
    """The attribute docstring; empty where the name says it all."""

    @property
    def allowed(self) -> str:
        """What the field may hold, in words."""
        return _describe(self.annotation)


@cache
def config_fields() -> dict[str, ConfigField]:
    """Return all fields of the configuration by dotted key, in the order of the schema."""
    return {field.key: field for field in _walk(schema.Config, "")}


@cache
def config_sections() -> dict[str, str]:
    """Return the dotted key of every section with the first line of its docstring."""
    return dict(_walk_sections(schema.Config, ""))


def nested_sections(section: type) -> dict[str, type]:
    """Return the fields of a section that are sections themselves, by name."""
    hints = get_type_hints(section)
    return {name: hint for name, hint in hints.items() if _is_section(hint)}


def _is_section(hint: object) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _walk(section: type, prefix: str) -> Iterator[ConfigField]:
    hints = get_type_hints(section, include_extras=True)
    nested = nested_sections(section)
    for field in dataclasses.fields(section):
        if field.name in nested:
            yield from _walk(nested[field.name], f"{prefix}{field.name}.")
        else:
            description = _attribute_docstrings().get((section.__name__, field.name), "")
            yield ConfigField(prefix + field.name, hints[field.name], field.default, description)


def _walk_sections(section: type, prefix: str) -> Iterator[tuple[str, str]]:
    for name, nested in nested_sections(section).items():
        yield prefix + name, inspect.getdoc(nested) or ""
        yield from _walk_sections(nested, f"{prefix}{name}.")


@cache
def _attribute_docstrings() -> dict[tuple[str, str], str]:
    """Return the string under each field of the schema by class and field name."""
    docstrings = {}
    for definition in ast.parse(inspect.getsource(schema)).body:
        if not isinstance(definition, ast.ClassDef):
            continue
        for statement, after in zip(definition.body, definition.body[1:], strict=False):
            match statement, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    docstrings[definition.name, name] = inspect.cleandoc(text)
    return docstrings


def _describe(annotation: object) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = " and ".join(_describe_bounds(arguments[1:]))
        return f"{_describe(arguments[0])} {bounds}"
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if origin is tuple:
        return _describe_tuple(arguments)
    return _NOUNS[annotation]


def _describe_tuple(arguments: tuple[type | GenericAlias, ...]) -> str:
    if arguments[-1] is Ellipsis:
        return f"a list, each {_describe(arguments[0])}"
    return f"a list of {len(arguments)}, each {_describe(arguments[0])}"


def _describe_bounds(metadata: Iterable[object]) -> Iterator[str]:
    for entry in metadata:
        if isinstance(entry, GroupedMetadata):
            yield from _describe_bounds(entry)
        elif isinstance(entry, MinLen):
            yield "that is not empty"
        else:
            sign, attribute = _BOUNDS[type(entry)]
            yield f"{sign} {getattr(entry, attribute):g}"
