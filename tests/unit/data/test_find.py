import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from dsts_ray.data.find import find_videos
from dsts_ray.errors import DataError
from tests.support.bucket import bucket_with
from tests.support.videos import manifest

NAMES = ("a/1.mp4", "a/b/2.WEBM", "a/3.txt", "[x].mp4", "c.avi")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video")
    return tmp_path / "videos"


@pytest.fixture
def bucket(folder: Path) -> Iterator[str]:
    with bucket_with(folder) as url:
        yield url


def paths(*names: str | Path, split: str | None = None) -> list[str]:
    return find_videos([str(name) for name in names], split=split)["path"].to_pylist()


def test_a_folder_has_the_videos_in_and_below_it(folder: Path, bucket: str) -> None:
    below = ["[x].mp4", "a/1.mp4", "a/b/2.WEBM", "c.avi"]
    assert paths(folder) == [f"{folder}/{name}" for name in below]
    assert paths(bucket) == [f"{bucket}/{name}" for name in below]
    assert paths(f"file://{folder}/a") == [f"{folder}/a/1.mp4", f"{folder}/a/b/2.WEBM"]


def test_globs(folder: Path, bucket: str) -> None:
    for root in (str(folder), bucket):
        assert paths(f"{root}/*.avi") == [f"{root}/c.avi"]
        assert paths(f"{root}/a/**/*") == [f"{root}/a/1.mp4", f"{root}/a/b/2.WEBM"]
        assert paths(f"{root}/[a-b]/[0-9].mp4") == [f"{root}/a/1.mp4"]


def test_a_file_is_a_video_by_any_name_and_need_not_be_there(folder: Path, bucket: str) -> None:
    assert paths(folder / "[x].mp4", folder / "a" / "3.txt") == [
        f"{folder}/[x].mp4",
        f"{folder}/a/3.txt",
    ]
    assert paths(folder / "missing.mp4") == [f"{folder}/missing.mp4"]
    assert paths(f"{bucket}/a/3.txt", f"{bucket}/gone.mp4") == [
        f"{bucket}/a/3.txt",
        f"{bucket}/gone.mp4",
    ]


def test_a_video_comes_once_in_the_order_of_the_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert paths("c.avi", "a", os.curdir) == [
        f"{folder}/{name}" for name in ("c.avi", "a/1.mp4", "a/b/2.WEBM", "[x].mp4")
    ]


def test_a_manifest_by_splits(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    manifest(("one", 0, "train"), ("two", 1, "test"), ("three", 0, "test")).write(path)
    assert find_videos([str(path)], split=None)["video_id"].to_pylist() == ["one", "two", "three"]
    (row, _) = find_videos([str(path)], split="test").to_pylist()
    assert row == {
        "video_id": "two",
        "path": "/videos/two.mp4",
        "shard": None,
        "row": None,
        "start_frame": 0,
        "end_frame": 9,
        "fps": 12.0,
        "width": 64,
        "height": 64,
        "rotation": 0,
    }
    with pytest.raises(DataError, match="no video in split 'val'"):
        paths(path, split="val")
    with pytest.raises(DataError, match=r"--split test chooses from manifests, and no .parquet"):
        paths(tmp_path, split="test")


def test_a_manifest_at_a_url(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    listed = manifest(("one", 0, "train"), ("two", 1, "test"))
    shards = pa.array(["shard.parquet", None], pa.string())
    place = listed.table.schema.get_field_index("shard")
    table = listed.table.set_column(place, listed.table.schema.field(place), shards)
    replace(listed, table=table).write(folder / "m.parquet")
    with bucket_with(folder) as url:
        found = find_videos([f"{url}/m.parquet"], split=None).to_pylist()
        assert [row["shard"] for row in found] == [f"{url}/shard.parquet", None]
        with pytest.raises(DataError, match=r"gone.parquet: there is no such file"):
            paths(f"{url}/gone.parquet")


def test_a_name_that_stands_for_nothing(folder: Path, bucket: str) -> None:
    for name in (folder / "*.mkv", f"{bucket}/*.mkv"):
        with pytest.raises(DataError, match=r"mkv: no file there ends in .*\.mp4"):
            paths(name)
    with pytest.raises(DataError, match="there is no such file"):
        paths(f"{bucket}/nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no file there ends in"):
        paths(folder / "empty")
