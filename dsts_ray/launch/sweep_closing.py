"""What a person reads when a sweep has ended."""

import shlex
from functools import partial

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dsts_ray.launch.tune import SweepOutcome
from dsts_ray.tracking.connection import without_password


def print_sweep(outcome: SweepOutcome, console: Console) -> None:
    """Print how every run ended, and what to do next."""
    record = outcome.record
    say = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    if outcome.was_finished:
        say(f"{outcome.name} is finished; its runs stay as they are")
    table = Table("row", "seed", "run", "outcome", "reason", title=escape(outcome.name))
    for trial in record.trials:
        ended, reason = record.outcomes.get(trial.run, ("not run", ""))
        table.add_row(trial.row, str(trial.seed), trial.run, ended, reason)
    console.print(table, markup=False)
    if record.failed:
        say("failed runs are tried again by the same command with --resume")
    store = f"--tracking-uri {shlex.quote(without_password(outcome.uri))}"
    say("what next")
    say(f"  report           python jobs/report.py {outcome.name} {store}")
    say(f"  promote          python jobs/promote.py --from-sweep {outcome.name} {store}")
