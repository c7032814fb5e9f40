"""A decoding process of its own: what it answers, and what it survives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsts_ray.data.isolated import DecodingProcess
from dsts_ray.errors import DataError, LimitError
from tests.support.lethal import LethalViewSpec
from tests.support.videos import write_video

SPEC = LethalViewSpec(
    num_frames=2, short_side=48, crop_size=32, crashes="crashes.mp4", hangs="hangs.mp4"
)


@pytest.fixture
def decoding() -> Iterator[DecodingProcess]:
    decoding = DecodingProcess(SPEC, max_seconds=2.0, timeout_s=3.0)
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
    np.testing.assert_array_equal(decoding.views(good), expected)
    with pytest.raises(DataError, match="the process that decoded the video died at it"):
        decoding.views(video(tmp_path / "crashes.mp4"))
    content = {**good, "path": (tmp_path / "good.mp4").read_bytes()}
    np.testing.assert_array_equal(decoding.views(content), expected)
    with pytest.raises(DataError, match="did not decode within 3 s"):
        decoding.views(video(tmp_path / "hangs.mp4"))
    np.testing.assert_array_equal(decoding.views(good), expected)
    with pytest.raises(LimitError, match=r"long.mp4 lasts 2.1 s; 2 s are allowed here"):
        decoding.views(video(tmp_path / "long.mp4", num_frames=21))
    with pytest.raises(DataError, match="does not decode"):
        decoding.views({**good, "path": b"no video"})
    np.testing.assert_array_equal(decoding.views(good), expected)
