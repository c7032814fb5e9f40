from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsts_ray.data.shards import read_info, read_video, write_shard
from dsts_ray.data.source import video_bytes, video_source
from dsts_ray.errors import DataError

CONTENTS = [b"first", DataError("is broken"), b"", b"x" * 100_000]


def write(path: Path, contents: list[bytes | DataError] = CONTENTS) -> Path:
    ids = [f"video{row}" for row in range(len(contents))]
    assert list(write_shard(path, packing="key", video_ids=ids, contents=contents)) == list(
        range(len(contents))
    )
    return path


def test_videos_come_back_one_by_one(tmp_path: Path) -> None:
    path = str(write(tmp_path / "shard.parquet"))
    assert [read_video(path, row) for row in (3, 0, 2)] == [CONTENTS[3], CONTENTS[0], CONTENTS[2]]
    info = read_info(path)
    assert info == ("key", ("video0", "video1", "video2", "video3"), {1: "is broken"})
    with pytest.raises(DataError, match="row 1 holds no video, it was refused"):
        read_video(path, 1)
    for row in (4, -1):
        with pytest.raises(DataError, match=f"has 4 videos, there is no row {row}"):
            read_video(path, row)


def test_a_read_costs_one_video(tmp_path: Path) -> None:
    path = write(tmp_path / "shard.parquet", [bytes([row]) * 1000 for row in range(20)])
    metadata = pq.read_metadata(path)
    assert metadata.num_row_groups == 20
    sizes = [metadata.row_group(row).total_byte_size for row in range(20)]
    assert max(sizes) < 1100


def test_the_same_videos_give_the_same_file(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one.parquet"), write(tmp_path / "other.parquet")
    assert one.read_bytes() == other.read_bytes()


def test_a_shard_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "shard.parquet"
    rows = write_shard(path, packing="key", video_ids="ab", contents=[b"a", b"b"])
    next(rows)
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    rows.close()
    assert list(tmp_path.iterdir()) == []
    for _ in write_shard(path, packing="key", video_ids="ab", contents=[b"a", b"b"]):
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "shard.parquet")
    content = path.read_bytes()
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(content[:-100])
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), foreign)
    nearly = tmp_path / "nearly.parquet"
    pq.write_table(pa.table({"video": [b"a"]}), nearly)
    for read in (read_info, lambda name: read_video(name, 0)):
        with pytest.raises(DataError, match=r"cut\.parquet: is no readable Parquet file"):
            read(str(cut))
        with pytest.raises(DataError, match=r"foreign\.parquet: is a Parquet file but no shard"):
            read(str(foreign))
        with pytest.raises(DataError, match=r"gone\.parquet: there is no such file"):
            read(str(tmp_path / "gone.parquet"))
    with pytest.raises(DataError, match=r"nearly\.parquet is a Parquet file but no shard"):
        read_info(str(nearly))
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"\0" * 200 + content[200:])
    with pytest.raises(DataError, match=r"torn\.parquet: row 0 cannot be read"):
        read_video(str(torn), 0)


def test_sources_are_local_paths_or_bytes(tmp_path: Path) -> None:
    shard = str(write(tmp_path / "shard.parquet"))
    file = tmp_path / "video.mp4"
    file.write_bytes(b"content")
    assert video_source({"path": None, "shard": shard, "row": 0}) == b"first"
    assert video_source({"path": str(file), "shard": None, "row": None}) == str(file)
    assert video_source({"path": f"file://{file}"}) == b"content"
    assert video_source({"path": b"itself"}) == b"itself"
    assert video_bytes({"path": str(file)}) == b"content"
    assert video_bytes({"path": None, "shard": shard, "row": 0}) == b"first"
