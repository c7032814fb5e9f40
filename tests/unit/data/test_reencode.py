from pathlib import Path

import av
import numpy as np
import pytest

from dsts_ray.data.decode import decode_clip, probe
from dsts_ray.data.reencode import Reencoding
from dsts_ray.errors import ConfigError, DataError
from tests.support.videos import read_index, write_video


def decode(source: str | bytes, short_side: int | None = None) -> np.ndarray:
    return decode_clip(source, np.arange, short_side=short_side)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
def test_frames_stay_and_the_size_falls(tmp_path: Path, suffix: str) -> None:
    path = str(write_video(tmp_path / f"a{suffix}", num_frames=30, width=320, height=240))
    reencoding = Reencoding(short_side=120, keyframe_interval=4)
    content = reencoding.apply(path)
    assert probe(content) == (30, 10.0, 160, 120, 0)
    assert [read_index(frame) for frame in decode(content)] == list(range(30))
    difference = decode(content).astype(int) - decode(path, 120)
    assert np.abs(difference).mean() < 5
    assert content == reencoding.apply(path) == reencoding.apply(Path(path).read_bytes())


def test_rotation_stays(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "a.mp4", width=128, height=96, rotation=90))
    content = Reencoding(short_side=48).apply(path)
    assert probe(content) == (12, 10.0, 48, 64, 270)
    assert np.abs(decode(content).astype(int) - decode(path, 48)).mean() < 6


def test_keyframes_are_where_they_were_asked_for(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "a.mp4", num_frames=20, keyframe_interval=100))
    (tmp_path / "b.mp4").write_bytes(Reencoding(keyframe_interval=5).apply(path))
    with av.open(str(tmp_path / "b.mp4")) as container:
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert max(np.diff([*keys, 20])) == 5


def test_sizes() -> None:
    assert Reencoding(short_side=240).size(1280, 720) == (426, 240)
    assert Reencoding(short_side=240).size(720, 1280) == (240, 426)
    assert Reencoding(short_side=240).size(160, 120) == (160, 120)
    assert Reencoding(short_side=240).size(161, 121) == (160, 120)
    assert Reencoding().size(1281, 721) == (1280, 720)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    for values in ({"short_side": 15}, {"short_side": 101}, {"keyframe_interval": 0}):
        with pytest.raises(ConfigError, match=f"is {next(iter(values.values()))}: use"):
            Reencoding(**values)
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="cannot be encoded anew: "):
        Reencoding().apply(str(tmp_path / "a.mp4"))
