"""Videos to windows in one process; ``integration/test_pipeline.py`` has those that end it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dsts_ray.data.clip import ViewSpec
from dsts_ray.data.decoders import Rows
from dsts_ray.data.find import VIDEO_SCHEMA
from dsts_ray.data.shards import write_shard
from dsts_ray.data.watch import Watch
from dsts_ray.data.window_decoder import NOT_SEEN, WindowDecoder
from dsts_ray.data.windows import SlidingWindows
from tests.support.videos import read_index, write_video

SPEC = ViewSpec(num_frames=4, short_side=64, crop_size=64)
SLIDING = SlidingWindows(window_s=2.0, stride_s=1.0)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 frames at 4 per second: 49 windows, in groups of 32."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_video(path, num_frames=200, fps=4, width=64, height=64)


def decode(
    *videos: dict[str, Any],
    sliding: SlidingWindows | None = None,
    parts: Sequence[int] = (0,),
    videos_per_part: int = 100,
    windows_per_block: int = 7,
) -> list[Rows]:
    rows = [{"start_frame": 0, **video} for video in videos]
    decoder = WindowDecoder(
        pa.Table.from_pylist(rows, VIDEO_SCHEMA),
        Watch("windows", 60.0),
        spec=SPEC,
        sliding=sliding,
        parts=parts,
        videos_per_part=videos_per_part,
        windows_per_block=windows_per_block,
    )
    return [block for number in range(len(parts)) for block in decoder(number)]


def windows(blocks: list[Rows]) -> list[tuple[int, int]]:
    ends = [(block["start_frame"].tolist(), block["end_frame"].tolist()) for block in blocks]
    return [window for starts, stops in ends for window in zip(starts, stops, strict=True)]


def test_a_long_video_comes_in_windows_and_each_in_its_frames(long_video: Path) -> None:
    blocks = decode({"path": str(long_video)}, sliding=SLIDING)
    assert windows(blocks) == [(start, start + 8) for start in range(0, 193, 4)]
    assert [len(block["clip"]) for block in blocks] == [7] * 7
    assert [block["block"][0] for block in blocks] == list(range(7))
    assert [bool(block["last"][0]) for block in blocks] == [False] * 6 + [True]
    assert {fps for block in blocks for fps in block["fps"]} == {4.0}
    clips = np.concatenate([block["clip"] for block in blocks])
    for number, (view,) in enumerate(clips):
        shown = [read_index(frame) for frame in view]
        assert shown == [4 * number + offset for offset in (1, 3, 5, 7)]


def test_a_whole_video_is_seen_as_an_evaluation_sees_it(long_video: Path) -> None:
    video = {"path": str(long_video), "start_frame": 20, "end_frame": 60}
    (block,) = decode(video, {"path": str(long_video)})
    assert windows([block]) == [(20, 60), (0, 200)]
    np.testing.assert_array_equal(block["clip"][0], SPEC.views(video))
    within = decode(video, sliding=SLIDING)
    assert windows(within) == [(start, start + 8) for start in range(20, 53, 4)]
    assert read_index(within[0]["clip"][0][0][0]) == 21


def test_parts_are_those_asked_for(long_video: Path) -> None:
    videos = [{"path": str(long_video)}] * 5
    blocks = decode(*videos, parts=(2, 0), videos_per_part=2)
    assert [block["part"].tolist() for block in blocks] == [[2], [0, 0]]
    assert [block["sample_id"].tolist() for block in blocks] == [[4], [0, 1]]
    assert all(block["last"].all() for block in blocks)


def test_a_damaged_place_costs_the_windows_over_it(long_video: Path, tmp_path: Path) -> None:
    content = bytearray(long_video.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    blocks = decode({"path": str(damaged)}, sliding=SLIDING)
    reasons = [reason for block in blocks for reason in block["reason"]]
    assert len(reasons) == 49
    refused = [number for number, reason in enumerate(reasons) if reason]
    assert 1 <= len(refused) <= 6
    assert refused == list(range(refused[0], refused[-1] + 1))
    assert all(reasons[number].startswith(f"{damaged}: ") for number in refused)
    assert windows(blocks) == [(start, start + 8) for start in range(0, 193, 4)]


def test_a_video_that_cannot_be_opened_is_one_refused_row(long_video: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shard.parquet"
    videos = [long_video.read_bytes(), b"no video"]
    assert list(write_shard(shard, packing="", video_ids=["a", "b"], contents=videos)) == [0, 1]
    packed = [{"shard": str(shard), "row": row} for row in (0, 1)]
    for sliding, num_windows in ((None, 1), (SLIDING, 49)):
        blocks = decode(*packed, {"path": str(tmp_path / "gone.mp4")}, sliding=sliding)
        reasons = [reason for block in blocks for reason in block["reason"]]
        assert windows(blocks)[num_windows:] == [NOT_SEEN] * 2
        assert reasons[:num_windows] == [""] * num_windows
        assert reasons[-2].startswith(f"{shard} row 1: does not decode")
        assert reasons[-1] == f"{tmp_path / 'gone.mp4'}: there is no such file"
