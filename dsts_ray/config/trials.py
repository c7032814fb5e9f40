"""The training runs of a sweep: one configuration for every row and seed."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsts_ray.config.fields import config_fields
from dsts_ray.config.load import load_config, run_name
from dsts_ray.config.schema import Config
from dsts_ray.config.sweep import (
    Sweep,
    Values,
    as_overrides,
    load_sweep,
    point_name,
    sweep_names,
)
from dsts_ray.errors import ConfigError


@dataclass(frozen=True)
class Trial:
    """One training run of a sweep.

    Attributes:
        row: Of the sweep.
        seed: ``train.seed``.
        config: Resolved configuration.
    """

    row: str
    seed: int
    config: Config

    @property
    def name(self) -> str:
        """Of the run: the same for the same configuration, in whatever sweep."""
        return run_name(self.config)


@dataclass(frozen=True)
class SweepPlan:
    """A sweep with what the command line changes, and the runs it consists of.

    Attributes:
        sweep: Rows, seeds, metric.
        overrides: ``key=value`` under the rows' own.
        trials: In order, row by row; none where Optuna chooses them.
    """

    sweep: Sweep
    overrides: tuple[str, ...]
    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        """Stays the same for the same runs, searcher and scheduler."""
        content = [
            *sorted(trial.name for trial in self.trials),
            *(self.sweep.searcher, self.sweep.scheduler, self.sweep.num_rows),
            *(run_name(self.base), str(sorted(self.sweep.space.items()))),
        ]
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
        return f"sweep-{self.sweep.name}-{digest}"

    @property
    def base(self) -> Config:
        """Configuration without any row's values."""
        return _resolve(self.sweep, self.overrides, {}, self.sweep.seeds[0])

    @property
    def num_runs(self) -> int:
        """Training runs there will be."""
        return len({trial.name for trial in self.trials}) or self.sweep.num_rows

    def unique_trials(self) -> dict[str, Trial]:
        """One trial for each run, by its name: rows that resolve alike share a run."""
        trials: dict[str, Trial] = {}
        for trial in self.trials:
            trials.setdefault(trial.name, trial)
        return trials

    def drawn(self, values: Values) -> Trial:
        """The trial at a point of the space."""
        seed = self.sweep.seeds[0]
        config = _resolve(self.sweep, self.overrides, values, seed)
        return Trial(point_name(values), seed, config)


def plan_sweep(sweep: Sweep, overrides: Sequence[str] = ()) -> SweepPlan:
    """Resolve the configuration of every run of a sweep.

    Args:
        sweep: See ``load_sweep``.
        overrides: ``key=value`` that go over the preset and under the rows' values.

    Raises:
        ConfigError: A key cannot be given, or the configuration of a row is impossible; all rows'
            problems at once.
    """
    problems = _override_problems(sweep, overrides)
    try:
        _resolve(sweep, overrides, {}, sweep.seeds[0])  # what is wrong with all rows is said once
    except ConfigError as error:
        problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    trials: list[Trial] = []
    for row, values in sweep.points(sweep.seeds[0]).items():
        try:
            trials += [
                Trial(row, seed, _resolve(sweep, overrides, values, seed)) for seed in sweep.seeds
            ]
        except ConfigError as error:
            problems.append(f"row {row!r} of sweep {sweep.name}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return SweepPlan(sweep, tuple(overrides), tuple(trials))


def shared_runs(plan: SweepPlan, changes: Mapping[str, Any]) -> dict[str, int]:
    """Count the runs that other packaged sweeps have in common with a plan.

    Args:
        plan: The plan.
        changes: What the command line changed in the sweep, as in ``load_sweep``.

    Returns:
        Number of common runs by sweep, without those that have none. A sweep that does not take
        the same changes and overrides has none.
    """
    own, shared = {trial.name for trial in plan.trials}, Counter[str]()
    for name in sweep_names():
        if name == plan.sweep.name:
            continue
        try:
            other = plan_sweep(load_sweep(name, **changes), plan.overrides)
        except ConfigError:
            continue
        if num_common := len(own & {trial.name for trial in other.trials}):
            shared[name] = num_common
    return dict(shared)


def _resolve(sweep: Sweep, overrides: Sequence[str], values: Values, seed: int) -> Config:
    return load_config(
        preset=sweep.preset,
        overrides=[
            f"tracking.metric={sweep.metric}",
            *overrides,
            *as_overrides(values),
            f"train.seed={seed}",
            "tracking.model_name=",
        ],
    )


def _override_problems(sweep: Sweep, overrides: Sequence[str]) -> list[str]:
    varied = [set(values) for values in sweep.points(0).values()] or [set(sweep.space)]
    always = set.intersection(*varied)
    own = {
        "name": "every run of a sweep has a name of its own",
        "train.seed": "use --seeds",
        "preset": "use --preset",
        "tracking.metric": "use --metric",
        "tracking.model_name": "a sweep registers nothing; jobs/promote.py --from-sweep does",
    }
    problems = []
    for key in dict.fromkeys(override.partition("=")[0] for override in overrides):
        if key in own:
            problems.append(f"{key}: cannot be given for a sweep: {own[key]}")
        elif key in always and key in config_fields():
            problems.append(f"{key}: every row of {sweep.name} sets it itself")
    return problems


def describe_plan(plan: SweepPlan, shared: Mapping[str, int]) -> str:
    """Say in lines what a sweep would run, and what that asks of the cluster."""
    sweep, lines = plan.sweep, [f"{plan.name}: {plan.sweep.title}"]
    if not plan.trials:
        lines.append(f"{sweep.num_rows} rows that {sweep.searcher} draws while it runs, from")
        lines += [f"  {key}: {entry}" for key, entry in sweep.space.items()]
    width = max((len(trial.row) for trial in plan.trials), default=0)
    lines += [f"  {t.row:{width}}  seed {t.seed}  {t.name}" for t in plan.trials]
    lines.append(f"{plan.num_runs} runs (searcher {sweep.searcher}, scheduler {sweep.scheduler})")
    configs = [trial.config for trial in plan.trials] or [plan.base]
    aliases = {c.model.weights for c in configs if _is_alias(c.model.weights)}
    lines += [
        f"names change with the version that {alias} means when the sweep begins"
        for alias in sorted(aliases)
    ]
    lines += [f"each run: {needs}" for needs in dict.fromkeys(map(_resources, configs))]
    lines += [f"{number} runs shared with {name}" for name, number in shared.items()]
    return "\n".join(lines)


def _is_alias(weights: str) -> bool:
    """Whether weights are whichever version of a registered model an alias stands for."""
    return weights.startswith("models:") and "@" in weights


def _resources(config: Config) -> str:
    scaling, data = config.scaling, config.data
    gpu = " and 1 GPU" if scaling.use_gpu else ""
    return (
        f"{scaling.num_workers} workers of {scaling.cpus_per_worker:g} CPU{gpu}, decoders of "
        f"{data.cpus_per_decoder:g} CPU: {data.num_decoders} for training, {data.num_decoders} "
        "for evaluation"
    )
