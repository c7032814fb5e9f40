"""Damaged videos are decoded or refused by name; nothing else happens, to the last of them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.jobs import REPOSITORY
from tests.support.mutate import MUTATIONS, write_originals
from tests.support.videos import OTHER_VIDEOS

NUM_ORIGINALS = 9
NUM_WAYS = 4


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    write_originals(folder)
    return folder


def check(folder: Path, first: int, last: int) -> set[tuple[str, str, str]]:
    """Decode damaged files in a process of their own; returns which original ended how, and why."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.mutate", str(folder), str(first), str(last)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"ended after {told[-1:]}: {done.stderr[-1000:]}"
    assert [line[0] for line in told] == [
        number for number in range(first, last) for _ in range(NUM_WAYS)
    ]
    others = [line for line in told if line[4] not in ("delivered", "refused")]
    assert not others
    return {(name, kind, outcome) for _, name, kind, _, outcome in told}


def test_a_sample_of_damaged_videos(originals: Path) -> None:
    seen = check(originals, 0, NUM_ORIGINALS * len(MUTATIONS))
    assert len({(name, kind) for name, kind, _ in seen}) == NUM_ORIGINALS * len(MUTATIONS)
    assert {outcome for *_, outcome in seen} == {"delivered", "refused"}


@pytest.mark.exhaustive
@pytest.mark.parametrize("first", range(1000, 2000, 250))
def test_a_thousand_damaged_videos(originals: Path, first: int) -> None:
    check(originals, first, first + 250)


@pytest.mark.exhaustive
@pytest.mark.skipif(not OTHER_VIDEOS.is_dir(), reason="DSTS_TEST_VIDEOS names no folder")
@pytest.mark.parametrize("first", range(3000, 3600, 100))
def test_damaged_videos_from_elsewhere(tmp_path: Path, first: int) -> None:
    for path in OTHER_VIDEOS.iterdir():
        if path.suffix != ".md":
            shutil.copy(path, tmp_path)
    check(tmp_path, first, first + 100)
