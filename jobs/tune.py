"""Train all runs of a sweep: a table of the paper, or a search over a space.

python jobs/tune.py table5 data.manifest=d48.parquet
python jobs/tune.py ablations --preset demo --seeds 0,1 train.num_epochs=3

Exit code 1: a run failed, though the others have ended; 2: the sweep cannot run as it is.
"""

import argparse
import sys
from typing import get_args

from dsts_ray.config.sweep import Scheduler, Searcher, load_sweep, only_rows, sweep_names
from dsts_ray.config.trials import describe_plan, plan_sweep, shared_runs
from dsts_ray.errors import DSTSRayError


def parse() -> argparse.Namespace:
    """Parse the command line."""
    summary, _, examples = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=f"{examples}\nsweeps: {', '.join(sweep_names())}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("sweep", metavar="SWEEP", help="one of those below, or a .yaml file")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="as for jobs/train.py, under all rows"
    )
    parser.add_argument("--row", action="append", help="only this one, by name; may be repeated")
    parser.add_argument("--preset", help="to start from instead of the sweep's")
    parser.add_argument("--seeds", type=lambda text: text.split(","), help="as 0,1,2")
    parser.add_argument("--metric", help="that picks the best, as val/mean_class_accuracy")
    parser.add_argument("--searcher", choices=get_args(Searcher))
    parser.add_argument("--scheduler", choices=get_args(Scheduler))
    parser.add_argument("--num-rows", type=int, help="to draw from the space")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted sweep")
    parser.add_argument("--dry-run", action="store_true", help="print what would run and stop")
    return parser.parse_intermixed_args()


def main() -> int:
    """Parse, run the sweep, print."""
    arguments = parse()
    names = ("preset", "seeds", "metric", "searcher", "scheduler", "num_rows")
    changes = {name: getattr(arguments, name) for name in names}
    try:
        sweep = load_sweep(arguments.sweep, **changes)
        if arguments.row:
            sweep = only_rows(sweep, arguments.row)
        plan = plan_sweep(sweep, arguments.overrides)
        if arguments.dry_run:
            print(describe_plan(plan, shared_runs(plan, changes)))
            return 0
        from rich.console import (
            Console,
        )  # the imports below take seconds that --help and --dry-run do not need

        from dsts_ray.launch.sweep_closing import print_sweep
        from dsts_ray.launch.tune import run_sweep

        console = Console()
        outcome = run_sweep(plan, console, resume=arguments.resume)
        print_sweep(outcome, console)
        return 1 if outcome.record.failed else 0
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command with --resume goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
