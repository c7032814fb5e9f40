"""What a person reads when a run has ended."""

import itertools
import math
import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from dsts_ray.launch.run import Outcome
from dsts_ray.tracking.connection import without_password
from dsts_ray.train.predictions import EvaluationSetup

_ROWS = (
    ("train/loss_last", "last training loss"),
    ("val/top1", "validation top-1"),
    ("val/top1_low", "  lower 95 % bound"),
    ("val/top5", "validation top-5"),
    ("val/mean_class_accuracy", "mean class accuracy, classes present"),
    ("val/mean_class_accuracy_all", "mean class accuracy, all classes"),
    ("val/num_videos", "validation videos"),
    ("val/num_refused", "  of them refused"),
    ("val/num_incomplete", "  of them with missing views"),
    ("num_parameters", "parameters"),
    ("num_dsts_parameters", "  of them DSTS"),
    ("num_skipped_steps", "steps skipped, their loss or gradient not finite"),
    ("clips_per_s", "clips per second"),
    ("data_wait_ratio", "share of time waiting for data"),
    ("checkpoint_ratio", "share of time held up by checkpoints"),
    ("wall_s", "seconds in all"),
)
_PAGE = "#/experiments?workflowType=machine_learning"
"""Without the parameter MLflow's page opens on its tools for language models."""


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print the closing table, where things are, and what to do next."""
    summary, run = outcome.summary, outcome.run
    say = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    if outcome.was_finished:
        say(f"run {run.name} is finished; choose another name=... or configuration to train again")
    say(f"validation: {EvaluationSetup(**summary['evaluation'])}")
    console.print(_table(run.name, summary))
    say(f"run folder         {run.folder}")
    if "registered_model" in summary:
        role = ", now champion" if summary["is_champion"] else ""
        version = f"{summary['registered_model']}/{summary['registered_version']}"
        say(f"registered         models:/{version}{role}")
        if summary.get("incomparable"):
            say(f"                   not compared with the champion: {summary['incomparable']}")
    for reason in summary.get("figures_lost", ()):
        say(f"not in MLflow      {reason}")
    say("\nwhat next")
    for line in _next_steps(without_password(run.tracking_uri), summary):
        say(f"  {line}")


def _table(name: str, summary: Mapping[str, Any]) -> Table:
    table = Table(title=f"run {name}", show_header=False)
    for key, label in _ROWS:
        if summary.get(key) is not None:
            value = int(summary[key]) if "num_" in key else summary[key]
            table.add_row(label, _number(value))
    for layer in itertools.count():
        key = f"dsts/layer{layer}/utilization"
        if key not in summary:
            break
        table.add_row(
            f"utilization of layer {layer}'s neurons (1: all alike)", _number(summary[key])
        )
    classes = summary["num_classes"]
    chance = f"{1 / classes:.4f}, {math.log(classes):.4f}"
    table.add_row("for comparison: chance, ln(classes)", chance)
    return table


def _next_steps(address: str, summary: Mapping[str, Any]) -> Iterator[str]:
    store = shlex.quote(address)
    if address.startswith("sqlite:"):
        yield f"serve its page   mlflow ui --backend-store-uri {store}"
        address = "http://127.0.0.1:5000"
    yield f"see the run      {address}/{_PAGE}"
    if "registered_model" not in summary:
        return
    name, version = summary["registered_model"], summary["registered_version"]
    model = f"models:/{name}@champion" if summary["is_champion"] else f"models:/{name}/{version}"
    options = f"--model {model} --tracking-uri {store}"
    yield f"evaluate         python jobs/evaluate.py {options}"
    yield f"predict          python jobs/predict.py {options} VIDEO..."
    if not summary["is_champion"]:
        options = f"{version} --model {name} --tracking-uri {store}"
        yield f"promote          python jobs/promote.py {options}"


def _number(value: float) -> str:
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4f}"
        if value < 10
        else f"{value:,.1f}"
    )
