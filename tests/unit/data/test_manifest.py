from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsts_ray.data.manifest import SCHEMA, Manifest, read_videos, write_parquet
from dsts_ray.errors import DataError


def make_manifest(
    labels: tuple[int, ...] = (0, 1, -1), splits: tuple[str, ...] = ("train", "val", "train")
) -> Manifest:
    rows = [
        {
            "video_id": f"video{index}",
            "split": split,
            "label": label,
            "group": "source",
            "path": f"/videos/{index}.mp4",
            "start_frame": 0,
            "end_frame": 30,
            "num_frames": 30,
            "fps": 25.0,
            "width": 64,
            "height": 48,
            "rotation": 0,
        }
        for index, (label, split) in enumerate(zip(labels, splits, strict=True))
    ]
    return Manifest(pa.Table.from_pylist(rows, SCHEMA), ("dive", "jump"))


def test_reads_what_it_wrote(tmp_path: Path) -> None:
    manifest = make_manifest()
    manifest.write(tmp_path / "folder" / "m.parquet")
    again = Manifest.read(tmp_path / "folder" / "m.parquet")
    assert again.table.equals(manifest.table)
    assert again.classes == ("dive", "jump")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["m.parquet"]


def test_split_keeps_order_and_classes() -> None:
    part = make_manifest().split("train")
    assert part.table["video_id"].to_pylist() == ["video0", "video2"]
    assert part.classes == ("dive", "jump")
    assert len(part) == 2


def test_a_split_without_videos_names_those_there_are() -> None:
    with pytest.raises(DataError, match="no video in split 'test'; it has: train, val"):
        make_manifest().split("test")


@pytest.mark.parametrize("label", [2, -2])
def test_a_label_outside_the_classes_is_refused(label: int) -> None:
    with pytest.raises(DataError, match=f"label {label} of video 'video1' is outside the 2 class"):
        make_manifest(labels=(0, label, 1))


def test_a_label_outside_the_classes_is_refused_on_reading(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    make_manifest().write(path)
    table = pq.read_table(path)
    position = table.column_names.index("label")
    table = table.set_column(position, SCHEMA.field("label"), pa.array([0, 7, 1], pa.int64()))
    pq.write_table(table, path)
    with pytest.raises(DataError, match=r"m\.parquet: label 7"):
        Manifest.read(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest at .*prepare_data"):
        Manifest.read(tmp_path / "m.parquet")


@pytest.mark.parametrize("content", [b"", b"video_id,label\n", b"PAR1garbagePAR1"])
def test_not_a_parquet_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        Manifest.read(path)


def test_a_parquet_file_that_is_no_manifest(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "m.parquet")
    with pytest.raises(DataError, match="no manifest"):
        Manifest.read(tmp_path / "m.parquet")


def test_another_schema_version(tmp_path: Path) -> None:
    table = make_manifest().table.replace_schema_metadata(
        {b"dsts_ray.manifest": b'{"schema_version": 2, "classes": []}'}
    )
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(DataError, match="schema version 2, this program reads 1"):
        Manifest.read(tmp_path / "m.parquet")


def test_missing_columns(tmp_path: Path) -> None:
    make_manifest().write(tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet").drop_columns(["label", "fps"])
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(DataError, match="lacks the columns label, fps"):
        Manifest.read(tmp_path / "m.parquet")


def test_empty_manifest(tmp_path: Path) -> None:
    make_manifest(labels=(), splits=()).write(tmp_path / "m.parquet")
    with pytest.raises(DataError, match="is empty"):
        Manifest.read(tmp_path / "m.parquet")


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    make_manifest().write(path)
    (tmp_path / "as_read").hardlink_to(path)
    before = path.read_bytes()
    make_manifest(labels=(1,), splits=("val",)).write(path)
    assert (tmp_path / "as_read").read_bytes() == before
    assert len(Manifest.read(path)) == 1


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.parquet"
    make_manifest().write(path)
    before = path.read_bytes()

    def fail(table: pa.Table, where: Path) -> None:
        where.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write_parquet(make_manifest().table, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_digest_is_of_the_content_however_it_lies_in_memory(tmp_path: Path) -> None:
    manifest = make_manifest()
    chunked = pa.concat_tables([manifest.table.slice(0, 1), manifest.table.slice(1)])
    padded = pa.concat_tables([manifest.table, manifest.table]).combine_chunks().slice(3)
    moved = manifest.table.set_column(4, SCHEMA.field("path"), pa.array(["/x", "/y", "/z"]))
    for table in (chunked, padded, moved):
        assert Manifest(table, manifest.classes).digest == manifest.digest
    manifest.write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").digest == manifest.digest


def test_the_digest_tells_contents_apart() -> None:
    table = make_manifest().table
    changed = {
        "label": pa.array([0, 1, 0]),
        "split": pa.array(["train", "val", "val"]),
        "end_frame": pa.array([30, 30, 29]),
        "video_id": pa.array(["video0", "video", "1video2"]),
    }
    digests = {make_manifest().digest, Manifest(table, ("dive", "jumps")).digest}
    digests.add(Manifest(table.take([1, 0, 2]), ("dive", "jump")).digest)
    for name, values in changed.items():
        place = table.column_names.index(name)
        other = table.set_column(place, SCHEMA.field(name), values)
        digests.add(Manifest(other, ("dive", "jump")).digest)
    assert len(digests) == 3 + len(changed)


def test_columns_of_a_split_are_those_of_the_whole_manifest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    manifest = make_manifest(splits=("train", "test", "train"))
    shards = pa.array(["shards/0.parquet"] * 3)
    table = manifest.table.set_column(
        SCHEMA.get_field_index("shard"), SCHEMA.field("shard"), shards
    )
    Manifest(table, manifest.classes).write(path)
    columns = ["label", "shard", "path"]
    videos = read_videos(path, "train", columns)
    assert videos.equals(Manifest.read(path).split("train").table.select(columns))
    assert videos["shard"].to_pylist() == [str(tmp_path / "shards" / "0.parquet")] * 2
