"""Metadata of the size of Something-Something v2 is indexed in time, with few real files behind."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.jobs import REPOSITORY
from tests.support.videos import write_video

NUM_VIDEOS = {"train": 168_913, "validation": 24_777, "test": 27_157}
NUM_CLASSES = 174
NUM_FILES = 4
LIMIT_S = 120
LIMIT_BYTES = 1.5 * 2**30


def write_metadata(root: Path) -> None:
    """The release in 20BN's naming, ids in no order, captions as long as real ones."""
    classes = [f"Moving something number {index} past something" for index in range(NUM_CLASSES)]
    vocabulary = {name: str(index) for index, name in enumerate(classes)}
    (root / "something-something-v2-labels.json").write_text(json.dumps(vocabulary))
    number = 0
    for split, count in NUM_VIDEOS.items():
        items = []
        for _ in range(count):
            number += 1
            item: dict[str, object] = {"id": str(number * 7919 % 220_848)}
            if split != "test":
                template = classes[number % NUM_CLASSES].replace("something", "[something]")
                item |= {"label": "moving a red mug number one past a small wooden box"}
                item |= {"template": template, "placeholders": ["a red mug", "a small wooden box"]}
            items.append(item)
        (root / f"something-something-v2-{split}.json").write_text(json.dumps(items))


@pytest.mark.perf
@pytest.mark.parametrize("num_links", [3_000, sum(NUM_VIDEOS.values())])
def test_something_something_is_indexed_in_two_minutes(tmp_path: Path, num_links: int) -> None:
    write_metadata(tmp_path)
    folder = tmp_path / "20bn-something-something-v2"
    for index in range(NUM_FILES):
        write_video(folder / f"real{index}.webm", num_frames=45, width=320, height=240, fps=12)
    for number in range(1, num_links + 1):
        link, real = folder / f"{number}.webm", folder / f"real{number % NUM_FILES}.webm"
        if number % 100:
            link.symlink_to(real)
        else:
            link.hardlink_to(real)
    job = [
        sys.executable,
        str(REPOSITORY / "jobs" / "prepare_data.py"),
        "index",
        "--format",
        "ssv2",
    ]
    started = time.monotonic()
    done = subprocess.run(
        [*job, "--root", str(tmp_path), "--out", str(tmp_path / "m.parquet")],
        capture_output=True,
        text=True,
        check=False,
    )
    taken_s = time.monotonic() - started
    peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert done.returncode == 0, done.stderr
    print(f"{num_links} videos: {taken_s:.1f} s, peak memory {peak_bytes / 2**20:.0f} MiB")
    report = json.loads((tmp_path / "m.report.json").read_text())
    assert report["num_annotated"] == sum(NUM_VIDEOS.values())
    assert report["num_videos"] == num_links
    assert report["num_refused"] == sum(NUM_VIDEOS.values()) - num_links
    assert {finding["check"] for finding in report["warnings"]} == {"same file", "not annotated"}
    assert taken_s < LIMIT_S
    assert peak_bytes < LIMIT_BYTES
