"""Compare two ways of doing the same work.

python jobs/bench.py scoring|dispatch|udl|train_overhead|inference_overhead|data|growth|scaling
"""

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from dsts_ray.errors import DSTSRayError

NAMES = (
    *("scoring", "dispatch", "udl", "train_overhead", "inference_overhead"),
    *("data", "growth", "scaling"),
)
WITH_VARIANTS = ("train_overhead", "data")


def cluster(bench: str) -> AbstractContextManager[None]:
    """Ray, for the one bench that streams in this process."""
    if bench != "data":
        return nullcontext()
    from dsts_ray.launch.cluster import connected

    return connected()


def main() -> int:
    """Parse, measure, print; 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("bench", choices=NAMES)
    parser.add_argument("--preset", help="network (default: ssv2_tpn_dsts; demo for scaling)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="(default: a GPU where there is)")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="(default: bf16 on a GPU, fp32 on a CPU)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the preset's frames")
    parser.add_argument("--batch-size", type=int, help="clips (default: the bench's own)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each way")
    parser.add_argument("--only", default="", metavar="TEXT", help="variants with it in their name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="over the preset")
    arguments = parser.parse_intermixed_args()
    for name, least in (("scale", 1e-3), ("repeats", 1), ("batch_size", 1)):
        given = getattr(arguments, name)
        if given is not None and given < least:
            parser.error(f"--{name.replace('_', '-')} is {given:g}: must be {least:g} or more")
    if arguments.only and arguments.bench not in WITH_VARIANTS:
        parser.error(f"--only is for {' and '.join(WITH_VARIANTS)}, {arguments.bench} runs whole")
    try:
        import torch  # seconds of import that --help does not need
        from rich.console import Console

        from dsts_ray.bench.compare import keep_freed_memory
        from dsts_ray.bench.networks import Setting
        from dsts_ray.bench.rows import print_rows, write_json
        from dsts_ray.bench.table import BENCHES

        keep_freed_memory()
        sizes = {"inference_overhead": 8, "train_overhead": 4, "scaling": 16}
        preset = "demo" if arguments.bench == "scaling" else "ssv2_tpn_dsts"
        device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
        setting = Setting(
            preset=arguments.preset or preset,
            device=torch.device(device),
            precision=arguments.precision or ("bf16" if device == "cuda" else "fp32"),
            scale=arguments.scale,
            batch_size=arguments.batch_size or sizes.get(arguments.bench, 2),
            repeats=arguments.repeats,
            only=arguments.only,
            overrides=tuple(arguments.overrides),
        )
        with cluster(arguments.bench):
            rows = BENCHES[arguments.bench](setting)
        if not rows:
            parser.error(f"--only {arguments.only}: no variant of {arguments.bench} has it")
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_rows(rows, Console())
    if arguments.json:
        write_json(rows, arguments.json)
    return int(any(row.holds is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
