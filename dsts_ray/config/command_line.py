"""The command line that every job with a configuration shares."""

import argparse
import json
import textwrap
from pathlib import Path

from dsts_ray.config.fields import ConfigField, config_fields, config_sections
from dsts_ray.config.load import load_config, preset_names, preset_text
from dsts_ray.config.schema import Config

DEFAULT_PRESET = "demo"


def local_path(text: str) -> Path:
    """Read a path of this machine, as argparse's ``type``.

    Raises:
        argparse.ArgumentTypeError: It is a URL, which a Path would take for a local folder.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is a URL, this must be a path of this machine")
    return Path(text)


def build_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of ``--preset NAME --config FILE --dry-run key=value...``.

    A job may add arguments of its own. Parse with ``parse_intermixed_args``, so that options may
    stand between the ``key=value`` pairs.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"{_presets_help()}\n\n{_keys_help()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help=f"packaged configuration to start from (default without --config: {DEFAULT_PRESET})",
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="YAML file that goes over the preset"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and stop"
    )
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="go over preset and file; keys below"
    )
    return parser


def config_from_arguments(arguments: argparse.Namespace) -> Config:
    """Resolve the configuration that the parsed arguments ask for.

    Raises:
        ConfigError: As in ``load_config``.
    """
    preset = arguments.preset
    if preset is None and arguments.config is None:
        preset = DEFAULT_PRESET
    return load_config(preset=preset, file=arguments.config, overrides=arguments.overrides)


def _presets_help() -> str:
    lines = ["presets:"]
    for name in preset_names():
        first_line = preset_text(name).splitlines()[0]
        lines.append(f"  {name:16} {first_line.removeprefix('# ')}")
    return "\n".join(lines)


def _keys_help() -> str:
    lines = ["keys, with default and allowed values:"]
    section = ""
    for field in config_fields().values():
        if field.key.rpartition(".")[0] != section:
            section = field.key.rpartition(".")[0]
            lines += ["", f"{section}: {config_sections()[section]}"]
        lines += _key_help(field)
    return "\n".join(lines)


def _key_help(field: ConfigField) -> list[str]:
    default = json.dumps(field.default) if field.default != "" else ""
    lines = [f"  {field.key}={default}  ({field.allowed})"]
    if field.description:
        lines.append(textwrap.indent(field.description, " " * 6))
    return lines
