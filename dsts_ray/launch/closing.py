"""What a person reads when a run has ended."""

import math
import shlex

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
    ("clips_per_s", "clips per second"),
    ("data_wait_ratio", "share of time waiting for data"),
    ("wall_s", "seconds in all"),
)


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print the closing table, where things are, and what to do next."""
    summary, run = outcome.summary, outcome.run
    if outcome.was_finished:
        console.print(
            f"run {run.name} is finished; choose another name=... or configuration to train again"
        )
    evaluated = EvaluationSetup(**summary["evaluation"])
    console.print(f"validation: {evaluated}", soft_wrap=True, highlight=False)
    table = Table(title=f"run {run.name}", show_header=False)
    for key, label in _ROWS:
        if summary.get(key) is not None:
            value = int(summary[key]) if "num_" in key else summary[key]
            table.add_row(label, _number(value))
    for layer in range(100):
        key = f"dsts/layer{layer}/utilization"
        if key not in summary:
            break
        label = f"utilization of layer {layer}'s neurons (1: all alike)"
        table.add_row(label, _number(summary[key]))
    classes = summary["num_classes"]
    table.add_row(
        "for comparison: chance, ln(classes)", f"{1 / classes:.4f}, {math.log(classes):.4f}"
    )
    console.print(table)
    say = lambda text: console.print(text, soft_wrap=True, highlight=False)  # noqa: E731
    say(f"run folder         {run.folder}")
    model = ""
    if "registered_model" in summary:
        name, version = summary["registered_model"], summary["registered_version"]
        model = (
            f"models:/{name}@champion" if summary["is_champion"] else f"models:/{name}/{version}"
        )
        role = ", now champion" if summary["is_champion"] else ""
        say(f"registered         models:/{name}/{version}{role}")
        if summary.get("incomparable"):
            say(f"                   not compared with the champion: {summary['incomparable']}")
    say("")
    say("what next")
    address = without_password(run.tracking_uri)
    store = shlex.quote(address)
    page = f"mlflow ui --backend-store-uri {store}" if address.startswith("sqlite:") else address
    say(f"  see the run      {page}")
    if model:
        options = f"--model {model} --tracking-uri {store}"
        say(f"  evaluate         python jobs/evaluate.py {options}")
        say(f"  predict          python jobs/predict.py {options} VIDEO...")


def _number(value: float) -> str:
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4f}"
        if value < 10
        else f"{value:,.1f}"
    )
