"""Optuna as a searcher of Ray Tune, told what earlier sessions of the sweep found."""

import math

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.samplers import TPESampler
from ray.tune.search.optuna import OptunaSearch

from dsts_ray.config.sweep import Range
from dsts_ray.config.trials import SweepPlan
from dsts_ray.launch.home import storage_folder, tracking_uri
from dsts_ray.report.record import SweepRecord
from dsts_ray.tracking.search import find_runs


def optuna_searcher(plan: SweepPlan, record: SweepRecord) -> tuple[OptunaSearch | None, int]:
    """A searcher of the sweep's space, and the number of trials left to it.

    Trials that have ended are told to it with their values, interrupted ones proposed first.
    Proposals follow from the seed where one trial runs at a time; else also from who ends first.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kept = record.kept
    known = [trial for trial in record.trials if trial.run in kept]
    num_left = plan.sweep.num_rows - len(known)
    if num_left <= 0:
        return None, 0
    space: dict[str, BaseDistribution] = {
        key: FloatDistribution(entry.low, entry.high, log=entry.log)
        if isinstance(entry, Range)
        else CategoricalDistribution(entry)
        for key, entry in plan.sweep.space.items()
    }
    metric = plan.base.tracking.metric
    search = OptunaSearch(
        space,
        metric=metric,
        mode="max",
        sampler=TPESampler(seed=plan.sweep.seeds[0], n_startup_trials=plan.sweep.num_rows // 4),
        points_to_evaluate=[
            dict(trial.parameters) for trial in record.trials if trial.run not in kept
        ],
    )
    storage = storage_folder(plan.base)
    runs = find_runs(
        uri=tracking_uri(plan.base, storage),
        experiment=plan.base.tracking.experiment,
        names=[trial.run for trial in known],
    )
    for trial in known:
        value = runs[trial.run].metrics.get(metric, math.nan) if trial.run in runs else math.nan
        if math.isfinite(value):
            search.add_evaluated_point(dict(trial.parameters), value)
    return search, num_left
