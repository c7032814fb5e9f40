"""Sweeps: tables of runs that differ in a few keys, as YAML; their loader, without torch or Ray."""

import difflib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Ge, Gt, MinLen
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dsts_ray.config.fields import config_fields
from dsts_ray.config.load import packaged_files
from dsts_ray.errors import ConfigError

Searcher = Literal["grid", "random", "optuna"]
Scheduler = Literal["none", "asha", "median", "pbt"]
Values = Mapping[str, Any]
"""Values by dotted key."""

MEASURES = (
    "val/top1",
    "val/top5",
    "val/mean_class_accuracy",
    "num_parameters",
    "wall_s",
    "time/inference_view_s",
)
"""What a report can put beside the paper's numbers; every finished run has them."""
_NOT_SWEPT = ("name", "train.seed", "storage.", "tracking.")
_DIGITS = 3


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    low: float
    high: float
    log: bool = False
    """Drawn evenly on a logarithmic scale."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One table of runs: named rows, or a space of which rows are made."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    title: Annotated[str, MinLen(1)]
    name: str = ""
    """Of the packaged file, or the file's stem."""
    preset: Annotated[str, MinLen(1)] = "demo"
    metric: str = "val/top1"
    """Picks the best checkpoint and the best trial; decides what a scheduler stops."""
    seeds: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0,)
    rows: Mapping[str, Values] = field(default_factory=dict)
    """Dotted keys and values by the row's name."""
    space: Mapping[str, list[Any] | Range] = field(default_factory=dict)
    """Choices or a range by dotted key."""
    num_rows: Annotated[int, Ge(1)] = 8
    """Rows that ``random`` and ``optuna`` draw from the space."""
    searcher: Searcher = "grid"
    scheduler: Scheduler = "none"
    baseline: str | Mapping[str, str] = ""
    """Row that all others are compared with, or that of each row."""
    source: str = ""
    """Where the paper's numbers stand."""
    paper: Mapping[str, Mapping[str, Annotated[float, Gt(0)]]] = field(default_factory=dict)
    """The paper's numbers by row and measure, in our units: ratios, counts, seconds."""

    def baseline_of(self, row: str) -> str | None:
        """The row that ``row`` is compared with; None for the baseline itself."""
        name = self.baseline if isinstance(self.baseline, str) else self.baseline.get(row, "")
        return name if name and name != row else None

    def points(self, seed: int = 0) -> dict[str, Values]:
        """Rows by name: those given, all of the space's grid, or ``num_rows`` drawn from it.

        Optuna chooses its rows while the sweep runs: none are known before.
        """
        if self.rows:
            return dict(self.rows)
        if self.searcher == "optuna":
            return {}
        drawn = self._grid() if self.searcher == "grid" else self._draws(seed)
        return {point_name(values): values for values in drawn}

    def _grid(self) -> Iterator[Values]:
        choices = [entry for entry in self.space.values() if isinstance(entry, list)]
        for values in itertools.product(*choices):
            yield dict(zip(self.space, values, strict=True))

    def _draws(self, seed: int) -> Iterator[Values]:
        for row in range(self.num_rows):
            rng = random.Random(f"{seed}/{row}")
            yield {key: _draw(rng, entry) for key, entry in self.space.items()}


def sweep_names() -> list[str]:
    """Return the names of the packaged sweeps, sorted."""
    return sorted(packaged_files("sweeps"))


def load_sweep(sweep: str, **changes: object) -> Sweep:
    """Load a packaged sweep by name, or a YAML file.

    Args:
        sweep: Name (see ``sweep_names``), or the path of a file that ends in ``.yaml``.
        changes: Fields that replace those of the file; None leaves one as it is.

    Raises:
        ConfigError: There is no such sweep, or one line for everything wrong with it.
    """
    name, text = _read(sweep)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"sweep {sweep}: is not valid YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"sweep {sweep}: must hold `title:` and `rows:` or `space:`")
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        loaded = _adapter().validate_python({"name": name, **content, **given})
    except ValidationError as error:
        raise _together(name, [_explained(entry) for entry in error.errors()]) from error
    problems = list(_problems(loaded))
    if "preset" in given and loaded.rows and all("preset" in row for row in loaded.rows.values()):
        problems.append(
            f"preset = {loaded.preset}: every row names a preset of its own, so it would change "
            "nothing; write a sweep whose rows name none, or change other keys"
        )
    if problems:
        raise _together(name, problems)
    return loaded


def only_rows(sweep: Sweep, names: Sequence[str]) -> Sweep:
    """Return the sweep with some of its rows, or points of its grid, in its order.

    Raises:
        ConfigError: A name is no row of the sweep, or the sweep draws its rows.
    """
    if sweep.searcher != "grid":
        raise ConfigError(f"--row: {sweep.searcher} draws the rows of sweep {sweep.name}")
    rows = sweep.points()
    if unknown := [name for name in names if name not in rows]:
        raise ConfigError(
            f"--row: {', '.join(map(repr, unknown))} is no row of sweep {sweep.name}; it has: "
            f"{', '.join(map(repr, rows))}"
        )
    baselines = {row: sweep.baseline_of(row) for row in names}
    return replace(
        sweep,
        rows={row: values for row, values in rows.items() if row in names},
        space={},
        paper={row: numbers for row, numbers in sweep.paper.items() if row in names},
        baseline={row: other for row, other in baselines.items() if other in names and other},
    )


def point_name(values: Values) -> str:
    """Name a point of a space by its values, as ``num_neurons=5 num_layers=3``."""
    return " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in values.items())


def as_overrides(values: Values) -> list[str]:
    """Turn values into ``key=value`` that ``load_config`` reads back as they are."""
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in values.items()
    ]


@cache
def _adapter() -> TypeAdapter[Sweep]:
    return TypeAdapter(Sweep)


def _read(sweep: str) -> tuple[str, str]:
    if sweep in sweep_names():
        return sweep, packaged_files("sweeps")[sweep].read_text(encoding="utf-8")
    if not sweep.endswith(".yaml"):
        nearest = difflib.get_close_matches(sweep, sweep_names(), n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(
            f"there is no sweep {sweep!r}: use one of {', '.join(sweep_names())}, or the path of "
            f"a .yaml file{hint}"
        )
    try:
        return Path(sweep).stem, Path(sweep).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"sweep {sweep}: cannot be read ({error}); give a YAML file") from error


def _together(name: str, problems: Sequence[str]) -> ConfigError:
    noun = "problem" if len(problems) == 1 else "problems"
    lines = "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
    return ConfigError(f"{len(problems)} {noun} in sweep {name}:\n{lines}")


def _explained(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where} = {json.dumps(error['input'], default=str)}: {error['msg']}"


def _problems(sweep: Sweep) -> Iterator[str]:
    if bool(sweep.rows) == bool(sweep.space):
        yield (
            "rows and space are both given: use one"
            if sweep.rows
            else "neither rows nor space holds anything to run: give one"
        )
    for row, values in sweep.rows.items():
        yield from (f"rows.{row}: {text}" for text in _key_problems(values))
    yield from (f"space: {text}" for text in _key_problems(sweep.space))
    yield from _space_problems(sweep)
    if sweep.scheduler == "pbt":
        yield (
            "scheduler = pbt: population-based training copies checkpoints between trials, and "
            "Ray Tune sees none of those that Ray Train's runs keep, so it would never exploit; "
            "use none, asha or median"
        )
    if len(set(sweep.seeds)) < len(sweep.seeds):
        yield f"seeds = {list(sweep.seeds)}: name each once"
    if sweep.metric not in MEASURES[:3]:
        yield (
            f"metric = {sweep.metric}: no run is chosen by it; use one of {', '.join(MEASURES[:3])}"
        )
    yield from _paper_problems(sweep)


def _key_problems(values: Mapping[str, Any]) -> Iterator[str]:
    for key in values:
        if key not in config_fields():
            nearest = difflib.get_close_matches(key, config_fields(), n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            yield f"{key}: is no key of the configuration{hint}"
        elif key.startswith(_NOT_SWEPT):
            yield f"{key}: is set by the sweep itself (seeds, names and places of its runs)"


def _space_problems(sweep: Sweep) -> Iterator[str]:
    for key, entry in sweep.space.items():
        if isinstance(entry, list) and not entry:
            yield f"space.{key}: is empty; give choices, or a range with low and high"
        if (
            isinstance(entry, Range)
            and not (0 if entry.log else -math.inf) < entry.low < entry.high
        ):
            sign = "0 < low < high" if entry.log else "low < high"
            yield f"space.{key}: from {entry.low:g} to {entry.high:g}, but {sign} must hold"
        if isinstance(entry, Range) and sweep.searcher == "grid":
            yield f"space.{key}: is a range, which has no grid; use searcher random or optuna"
    if sweep.rows and sweep.searcher != "grid":
        yield f"searcher = {sweep.searcher}: draws from a space, this sweep has rows; use grid"
    if sweep.searcher == "optuna" and len(sweep.seeds) > 1:
        yield (
            f"seeds = {list(sweep.seeds)}: optuna is told one value for each point it proposes; "
            "give one seed, and repeat the best point with others"
        )


def _paper_problems(sweep: Sweep) -> Iterator[str]:
    """Rows that the paper's numbers or a comparison name, but that are not there."""
    if sweep.searcher != "grid":
        if sweep.paper or sweep.baseline:
            yield (
                f"searcher = {sweep.searcher}: makes rows of its own, paper and baseline name "
                "others; leave them out, or use grid"
            )
        return
    if any(isinstance(entry, Range) for entry in sweep.space.values()):
        return
    rows = sweep.points()
    for row, numbers in sweep.paper.items():
        if row not in rows:
            nearest = difflib.get_close_matches(row, rows, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            yield f"paper.{row}: no row of the sweep has this name{hint}"
        for measure in numbers:
            if measure not in MEASURES:
                yield (f"paper.{row}.{measure}: is never logged; use one of {', '.join(MEASURES)}")
    pairs = {"": sweep.baseline} if isinstance(sweep.baseline, str) else dict(sweep.baseline)
    for row in {row for pair in pairs.items() for row in pair if row and row not in rows}:
        yield f"baseline = {row}: no row of the sweep has this name"


def _draw(rng: random.Random, entry: list[Any] | Range) -> object:
    if isinstance(entry, list):
        return rng.choice(entry)
    low, high = (
        (math.log(entry.low), math.log(entry.high)) if entry.log else (entry.low, entry.high)
    )
    value = rng.uniform(low, high)
    return float(_short(math.exp(value) if entry.log else value))


def _short(value: object) -> str:
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)
