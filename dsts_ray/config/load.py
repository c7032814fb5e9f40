"""Loads a configuration: schema defaults < preset < file < key=value, all problems at once."""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dsts_ray.config.fields import config_fields, config_sections, nested_sections
from dsts_ray.config.rules import problems as rule_problems
from dsts_ray.config.schema import Config
from dsts_ray.errors import ConfigError


class _InlineListDumper(yaml.SafeDumper):
    """Writes a section over many lines and a list on one."""


_InlineListDumper.add_representer(
    list,
    lambda dumper, values: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", values, flow_style=True
    ),
)
FREE_KEYS = (
    "name",
    "storage.path",
    "tracking.uri",
    "tracking.figures_every",
    "data.decoder_resource",
    "scaling.placement_strategy",
    "scaling.wait_for_nodes_s",
    "scaling.min_workers",
    "scaling.max_workers",
    "scaling.max_failures",
    "scaling.collective_timeout_s",
)
"""Where a run is stored, tracked and placed, and what it survives: these change neither its name
nor, up to rounding, what it computes."""


def load_config(
    *, preset: str | None = None, file: Path | None = None, overrides: Sequence[str] = ()
) -> Config:
    """Resolve a configuration.

    A ``preset`` key in ``file`` or ``overrides`` chooses the preset as the argument does; the
    order is file < argument < overrides.

    Args:
        preset: Name of a packaged preset (see ``preset_names``).
        file: YAML file with sections as in the schema.
        overrides: ``key=value`` with dotted keys. Values are YAML; those of text fields are taken
            as they stand. Of equal keys the last wins.

    Raises:
        ConfigError: One line for every unknown key, impossible value and broken rule.
    """
    layer_problems: list[str] = []
    override_problems: list[str] = []
    from_file = _read_yaml(file, layer_problems) if file else {}
    from_command_line = _parse_overrides(overrides, override_problems)
    argument = {"preset": preset} if preset else {}
    chosen = str({**from_file, **argument, **from_command_line}.get("preset") or "")
    from_preset = _read_preset(chosen, layer_problems) if chosen else {}
    given = {**from_preset, **from_file, **from_command_line, "preset": chosen}
    problems = layer_problems + override_problems
    return _decode(given, problems, check_rules=not layer_problems)


def changed_config(config: Config, overrides: Sequence[str], changeable: Sequence[str]) -> Config:
    """Return the configuration of a trained model with ``key=value`` overrides.

    Args:
        config: The model's.
        overrides: As in ``load_config``.
        changeable: Beginnings of the keys that may be given, as ``evaluation.``.

    Raises:
        ConfigError: As in ``load_config``, and for a key that may not be given.
    """
    problems: list[str] = []
    given = _parse_overrides(overrides, problems)
    problems += [
        f"{key}: cannot be changed for a trained model; only {', '.join(changeable)} can"
        for key in given
        if key in config_fields() and not key.startswith(tuple(changeable))
    ]
    return _decode({**flatten(config), **given}, problems, check_rules=True)


def config_from_yaml(source: str | Path) -> Config:
    """Read what ``config_to_yaml`` wrote: the text itself, or the path of a file.

    Raises:
        ConfigError: As in ``load_config``.
    """
    problems: list[str] = []
    if isinstance(source, Path):
        given = _read_yaml(source, problems)
    else:
        given = _parse_mapping(source, "the configuration", problems)
    return _decode(given, problems, check_rules=not problems)


def config_to_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as nested dictionaries of plain YAML and JSON values."""
    return {name: _plain(value) for name, value in dataclasses.asdict(config).items()}


def config_to_yaml(config: Config) -> str:
    """Return the configuration as YAML that ``config_from_yaml`` reads back to an equal one."""
    return yaml.dump(config_to_dict(config), Dumper=_InlineListDumper, sort_keys=False)


def flatten(config: Config) -> dict[str, Any]:
    """Return every value of the configuration by dotted key."""
    return dict(_leaves(config_to_dict(config)))


def run_name(config: Config) -> str:
    """Return ``config.name``, or a name that stays the same for the same configuration.

    ``FREE_KEYS`` do not change the name.
    """
    if config.name:
        return config.name
    relevant = {k: v for k, v in flatten(config).items() if k not in FREE_KEYS}
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()
    return f"{config.preset or 'run'}-{digest[:8]}"


def preset_names() -> list[str]:
    """Return the names of the packaged presets, sorted."""
    return sorted(packaged_files("presets"))


def preset_text(name: str) -> str:
    """Return the YAML text of a packaged preset."""
    return packaged_files("presets")[name].read_text(encoding="utf-8")


@cache
def packaged_files(folder: Literal["presets", "sweeps"]) -> dict[str, Traversable]:
    """Return the YAML files of a packaged folder by name."""
    return {
        entry.name.removesuffix(".yaml"): entry
        for entry in (resources.files("dsts_ray.config") / folder).iterdir()
        if entry.name.endswith(".yaml")
    }


def _read_preset(name: str, problems: list[str]) -> dict[str, Any]:
    if name in preset_names():
        return _parse_mapping(preset_text(name), f"preset {name}", problems)
    nearest = difflib.get_close_matches(name, preset_names(), n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    problems.append(f"preset = {_show(name)}: must be one of {', '.join(preset_names())}{hint}")
    return {}


def _read_yaml(file: Path, problems: list[str]) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        problems.append(
            f"configuration file {file}: {error.strerror}; give the path of a YAML file"
        )
        return {}
    except UnicodeDecodeError:
        problems.append(f"configuration file {file}: is not UTF-8 text; give a YAML file")
        return {}
    return _parse_mapping(text, f"configuration file {file}", problems)


def _parse_mapping(text: str, source: str, problems: list[str]) -> dict[str, Any]:
    """Parse YAML text to values by dotted key."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problems.append(f"{source}: is not valid YAML: {' '.join(str(error).split())}")
        return {}
    if content is None:
        return {}
    if not isinstance(content, dict):
        problems.append(f"{source}: must hold sections such as `dsts:`, not {_show(content)}")
        return {}
    return dict(_leaves(content))


def _parse_overrides(overrides: Sequence[str], problems: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            problems.append(f"{override}: must have the form key=value, as in dsts.num_neurons=6")
            continue
        try:
            value = text if key in _text_keys() else yaml.safe_load(text)
        except yaml.YAMLError:
            problems.append(f"{key} = {text}: is not valid YAML")
            continue
        values.update(_leaves({key: value}))
    return values


@cache
def _text_keys() -> set[str]:
    """Return the keys whose values are text as it stands, be it empty, a number or a choice."""
    return {key for key, field in config_fields().items() if isinstance(field.default, str)}


def _decode(given: Mapping[str, Any], problems: list[str], *, check_rules: bool) -> Config:
    """Turn raw values by dotted key into a configuration, or raise all problems at once."""
    values: dict[str, object] = {}
    doubtful: set[str] = set()
    for key, raw in given.items():
        if key not in config_fields():
            nearest = _nearest_keys(key)
            problems.append(_unknown_key(key, raw, nearest))
            doubtful.update(nearest)
            continue
        try:
            values[key] = _decode_value(key, raw)
        except ValidationError:
            problems.append(f"{key} = {_show(raw)}: must be {config_fields()[key].allowed}")
            doubtful.add(key)
    config = Config(**_arguments(Config, values, ""))
    if check_rules:
        broken = rule_problems(config)
        problems += [text for text in broken if not any(key in text for key in doubtful)]
    if problems:
        noun = "problem" if len(problems) == 1 else "problems"
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"{len(problems)} {noun} in the configuration:\n{lines}")
    return config


def _decode_value(key: str, raw: object) -> object:
    """Decode one value; true and false are no numbers, and neither are infinity and nan."""
    entries = raw if isinstance(raw, list) else [raw]
    if (
        any(isinstance(entry, bool) for entry in entries)
        and config_fields()[key].annotation is not bool
    ):
        raw = None
    return _adapter(key).validate_python(raw)


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    return TypeAdapter(config_fields()[key].annotation, config=ConfigDict(allow_inf_nan=False))


def _arguments(section: type, values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return a section's given values, with every section inside it built."""
    nested = nested_sections(section)
    arguments = {
        name: inner(**_arguments(inner, values, f"{prefix}{name}."))
        for name, inner in nested.items()
    }
    given = {
        key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)
    }
    return arguments | {name: value for name, value in given.items() if "." not in name}


def _nearest_keys(key: str) -> list[str]:
    """Return the keys that end in the same word, else the most similar one, else none."""
    leaf = key.rpartition(".")[2]
    same_leaf = [known for known in config_fields() if known.rpartition(".")[2] == leaf]
    if same_leaf:
        return same_leaf
    similar = difflib.get_close_matches(key, config_fields(), n=1)
    if similar:
        return similar
    by_leaf = {known.rpartition(".")[2]: known for known in config_fields()}
    return [by_leaf[match] for match in difflib.get_close_matches(leaf, by_leaf, n=1)]


def _unknown_key(key: str, raw: object, nearest: Sequence[str]) -> str:
    if key in config_sections():
        return f"{key} = {_show(raw)}: is a section; set its keys, as in {key}.KEY=VALUE"
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "see --help for all keys"
    return f"{key} = {_show(raw)}: unknown key; {hint}"


def _leaves(mapping: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield values by dotted key; a section without content yields nothing."""
    for name, value in mapping.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{key}.")
        elif value is not None or key not in config_sections():
            yield key, value


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
