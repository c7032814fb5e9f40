"""Rename published weights to our layout (.safetensors), or ours to mmaction2's (.pth).

python jobs/convert.py tpn_tsm_r50.pth tpn.safetensors
"""

import argparse
import sys
from pathlib import Path

from dsts_ray.errors import DSTSRayError


def main() -> int:
    """Parse, convert, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("source", type=Path, help="file in any known layout")
    parser.add_argument(
        "target", type=Path, help=".safetensors: our names; .pth: mmaction2's; must not exist"
    )
    arguments = parser.parse_args()
    if arguments.target.suffix not in (".safetensors", ".pth"):
        parser.error(f"target is {arguments.target}; it must end in .safetensors or .pth")
    try:
        from dsts_ray.models.convert import convert_file  # seconds that --help does not need

        conversion = convert_file(arguments.source, arguments.target)
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{conversion.source} -> {conversion.target}: {conversion.num_tensors} tensors")
    reasons: dict[str, list[str]] = {}
    for name, reason in conversion.left_out:
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        others = f" and {len(names) - 1} more" if names[1:] else ""
        print(f"left out {names[0]}{others}: {reason}")
    for remark in conversion.remarks:
        print(remark)
    return 0


if __name__ == "__main__":
    sys.exit(main())
