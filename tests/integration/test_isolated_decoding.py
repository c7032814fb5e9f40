"""A decoding process of its own: what it answers, and what it survives."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsts_ray.data.isolated import DecodingProcess, limited_views
from dsts_ray.data.packing import PackedFile, Packing, Shard, pack_shard
from dsts_ray.data.reencode import Reencoding
from dsts_ray.data.shards import read_info, read_video
from dsts_ray.errors import DataError, DSTSRayError, LimitError
from tests.support.jobs import REPOSITORY
from tests.support.lethal import LethalReencoding, LethalViewSpec
from tests.support.videos import write_video

SPEC = LethalViewSpec(
    num_frames=2, short_side=48, crop_size=32, crashes="crashes.mp4", hangs="hangs.mp4"
)


@pytest.fixture
def decoding() -> Iterator[DecodingProcess]:
    decoding = DecodingProcess(partial(limited_views, SPEC, 2.0), timeout_s=3.0)
    yield decoding
    decoding.close()


def video(path: Path, num_frames: int = 10) -> dict[str, Any]:
    write_video(path, num_frames=num_frames, fps=10)
    return {"path": str(path), "start_frame": 0, "end_frame": None}


def test_a_video_that_ends_or_hangs_the_process_costs_its_own_answer(
    decoding: DecodingProcess, tmp_path: Path
) -> None:
    good = video(tmp_path / "good.mp4")
    expected = SPEC.views(good)
    np.testing.assert_array_equal(decoding(good), expected)
    with pytest.raises(DataError, match="2 decoding processes died at it"):
        decoding(video(tmp_path / "crashes.mp4"))
    content = {**good, "path": (tmp_path / "good.mp4").read_bytes()}
    np.testing.assert_array_equal(decoding(content), expected)
    with pytest.raises(DataError, match="did not decode within 3 s"):
        decoding(video(tmp_path / "hangs.mp4"))
    np.testing.assert_array_equal(decoding(good), expected)
    with pytest.raises(LimitError, match=r"long.mp4 lasts 2.1 s; 2 s are allowed here"):
        decoding(video(tmp_path / "long.mp4", num_frames=21))
    with pytest.raises(DataError, match="does not decode"):
        decoding({**good, "path": b"no video"})
    np.testing.assert_array_equal(decoding(good), expected)


def test_a_video_that_ends_or_hangs_its_encoding_is_left_out_of_the_shard(tmp_path: Path) -> None:
    names = ["good", "crashes", "hangs", "killed once", "shorter"]
    files = tuple(
        PackedFile(str(write_video(tmp_path / f"{name}.mp4")), name, 12 + (name == "shorter"), 1)
        for name in names
    )
    lethal = LethalReencoding(
        short_side=32,
        crashes="crashes.mp4",
        hangs="hangs.mp4",
        killed="killed once.mp4",
        flag=tmp_path / "flag",
    )
    out, packing = tmp_path / "out", Packing(reencoding=lethal)
    assert list(pack_shard(Shard("shard", files), out, packing, "key", timeout_s=3.0)) == [1] * 5
    assert read_info(str(out / "shard")).refused == {
        1: "2 decoding processes died at it",
        2: "did not decode within 3 s",
        4: "delivered 13 frames when indexed, 12 now",
    }
    for row in (0, 3):
        content = read_video(str(out / "shard"), row)
        assert content == Reencoding(short_side=32).apply(files[row].path)


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
from functools import partial

from dsts_ray.data.clip import ViewSpec
from dsts_ray.data.isolated import DecodingProcess, limited_views

print("begins")
spec = ViewSpec(num_frames=2, short_side=48, crop_size=32)
decoding = DecodingProcess(partial(limited_views, spec, 2.0), timeout_s=30.0)
print(decoding({video(tmp_path / "good.mp4")!r}).shape)
""")
    ended = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.stdout == "begins\n(1, 2, 32, 32, 3)\n", ended.stderr


def test_a_process_that_does_not_start_is_no_fault_of_the_video(
    decoding: DecodingProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = video(tmp_path / "good.mp4")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DSTSRayError, match="did not start") as raised:
        decoding(good)
    assert not isinstance(raised.value, DataError)
    monkeypatch.undo()
    np.testing.assert_array_equal(decoding(good), SPEC.views(good))
