"""What a person reads before an alias moves."""

from io import StringIO

from rich.console import Console

from dsts_ray.launch.promote import Verdict
from dsts_ray.launch.promotion_table import print_verdict
from dsts_ray.tracking.promotion import Version


def test_every_version_is_shown_and_names_are_text() -> None:
    tags = {"val/top1": "0.25", "protocol": "1x1", "split": "[test]", "num_videos": "8"}
    versions = [Version("1", "r", ("champion",), tags), Version("2", "r", (), {})]
    verdict = Verdict("[m]", versions, versions[1], versions[0], "val/top1", None, [])
    out = StringIO()
    print_verdict(verdict, Console(file=out, width=160))
    lines = out.getvalue().splitlines()
    assert lines[0].strip() == "models:/[m]"
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells == [
        ["1", "champion", "0.2500", "1x1", "[test]", "8", ""],
        ["2 (candidate)", "", "", "", "", "", ""],
    ]
