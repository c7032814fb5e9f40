import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsts_ray.data.clip import ClipSpec, ViewSpec
from dsts_ray.data.index import index_dataset
from dsts_ray.data.manifest import SCHEMA, Manifest
from dsts_ray.data.packing import (
    Packing,
    Plan,
    claimed,
    missing_shards,
    pack_shard,
    parse_bytes,
    plan_shards,
    write_packed,
)
from dsts_ray.data.reencode import Reencoding
from dsts_ray.data.shards import read_video
from dsts_ray.errors import ConfigError, DataError
from tests.support.videos import manifest as manifest_of
from tests.support.videos import write_video

VIEWS = ViewSpec(num_frames=2, short_side=48, crop_size=32)
CLIPS = ClipSpec(num_frames=2, short_side=48, crop_size=32)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Six videos; two of them are one file under one path, annotated in two parts."""
    for number in range(5):
        write_video(tmp_path / "videos" / f"{number}.mp4", num_frames=8 + number)
    lines = "".join(f"{number}.mp4,{number % 2},train\n" for number in range(5))
    (tmp_path / "videos" / "list.csv").write_text(lines)
    index_dataset(
        format="csv",
        root=tmp_path / "videos" / "list.csv",
        out=tmp_path / "m.parquet",
        num_processes=1,
    )
    whole = Manifest.read(tmp_path / "m.parquet")
    rows = whole.table.to_pylist()
    rows.append({**rows[1], "video_id": "part", "start_frame": 4})
    return Manifest(pa.Table.from_pylist(rows, SCHEMA), whole.classes)


def pack(manifest: Manifest, out: Path, packing: Packing) -> tuple[Plan, Manifest, pa.Table]:
    plan = plan_shards(manifest, packing)
    with claimed(out, plan.record):
        for shard in missing_shards(plan, out):
            assert sum(pack_shard(shard, out, packing, plan.key)) == shard.num_bytes
        refused = write_packed(manifest, plan, packing, out)
    return plan, Manifest.read(out / "manifest.parquet"), refused


def test_packed_videos_are_the_files(manifest: Manifest, tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in (tmp_path / "videos").glob("*.mp4"))
    plan, packed, refused = pack(manifest, tmp_path / "out", Packing(shard_bytes=size // 2))
    assert [shard.name for shard in plan.shards] == [
        f"shard-{number:05d}.parquet" for number in range(len(plan.shards))
    ]
    assert len(plan.shards) in (2, 3)
    assert all(shard.num_bytes <= size // 2 for shard in plan.shards)
    assert len(refused) == 0
    kept = [name for name in SCHEMA.names if name not in ("path", "shard", "row")]
    assert packed.table.select(kept).equals(manifest.table.select(kept))
    assert packed.digest == manifest.digest
    rows = packed.table.to_pylist()
    for row, source in zip(rows, manifest.table.to_pylist(), strict=True):
        assert row["path"] is None
        assert read_video(row["shard"], row["row"]) == Path(source["path"]).read_bytes()
        assert (VIEWS.views(row) == VIEWS.views(source)).all()
        clips = [CLIPS.training_clip(each, epoch=1, sample_id=2) for each in (row, source)]
        assert (clips[0] == clips[1]).all()
    assert (rows[5]["shard"], rows[5]["row"]) == (rows[1]["shard"], rows[1]["row"])
    stored = pq.read_table(tmp_path / "out" / "manifest.parquet")["shard"].to_pylist()
    assert set(stored) == {shard.name for shard in plan.shards}


def test_a_packed_folder_may_move(manifest: Manifest, tmp_path: Path) -> None:
    pack(manifest, tmp_path / "out", Packing())
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "videos")
    packed = Manifest.read(tmp_path / "elsewhere" / "manifest.parquet")
    for row in packed.table.to_pylist():
        assert VIEWS.views(row).shape == VIEWS.shape


def test_reencoded_videos_are_smaller_and_the_manifest_says_so(
    manifest: Manifest, tmp_path: Path
) -> None:
    reencoding = Reencoding(short_side=32, keyframe_interval=2)
    _, packed, _ = pack(manifest, tmp_path / "out", Packing(reencoding=reencoding))
    assert packed.table["width"].to_pylist() == [42] * 6
    assert packed.table["height"].to_pylist() == [32] * 6
    frames = [packed.table[name].to_pylist() for name in ("num_frames", "start_frame")]
    assert frames == [manifest.table[name].to_pylist() for name in ("num_frames", "start_frame")]
    assert VIEWS.views(packed.table.to_pylist()[5]).shape == VIEWS.shape


@pytest.mark.parametrize("reencoding", [None, Reencoding(short_side=32)])
def test_videos_that_broke_after_indexing_are_left_out(
    manifest: Manifest, tmp_path: Path, reencoding: Reencoding | None
) -> None:
    (tmp_path / "videos" / "0.mp4").unlink()
    if reencoding:
        write_video(tmp_path / "videos" / "1.mp4", num_frames=5)
        (tmp_path / "videos" / "2.mp4").write_bytes(b"no video")
    _, packed, refused = pack(manifest, tmp_path / "out", Packing(reencoding=reencoding))
    reasons = dict(zip(refused["video_id"].to_pylist(), refused["reason"].to_pylist(), strict=True))
    assert reasons.pop("0.mp4").endswith("no such file") or reencoding
    if reencoding:
        assert reasons.pop("1.mp4") == "delivered 9 frames when indexed, 5 now"
        assert reasons.pop("part") == "delivered 9 frames when indexed, 5 now"
        assert "cannot be encoded anew" in reasons.pop("2.mp4")
    assert not reasons
    assert len(packed) == 6 - len(refused)
    assert set(refused["check"].to_pylist()) == {"packing"}
    assert pq.read_table(tmp_path / "out" / "manifest.refused.parquet").equals(refused)


def test_a_file_that_changes_while_packing_is_left_out(manifest: Manifest, tmp_path: Path) -> None:
    packing = Packing()
    plan = plan_shards(manifest, packing)
    path = tmp_path / "videos" / "3.mp4"
    size = path.stat().st_size
    path.write_bytes(b"longer" + path.read_bytes())
    with claimed(tmp_path / "out", plan.record):
        for shard in plan.shards:
            list(pack_shard(shard, tmp_path / "out", packing, plan.key))
        refused = write_packed(manifest, plan, packing, tmp_path / "out")
    (reason,) = refused["reason"].to_pylist()
    assert reason == f"had {size} bytes when packing began, {size + 6} now"


def test_nothing_left_is_an_error(manifest: Manifest, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "videos")
    with pytest.raises(DataError, match=r"no video could be packed, the first: .*no such file"):
        pack(manifest, tmp_path / "out", Packing())
    assert not (tmp_path / "out" / "manifest.parquet").exists()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_packing_continues_and_ends_with_the_same_files(manifest: Manifest, tmp_path: Path) -> None:
    packing = Packing(shard_bytes=5000)
    whole, again = tmp_path / "whole", tmp_path / "again"
    plan, *_ = pack(manifest, whole, packing)
    assert len(plan.shards) > 2
    with claimed(again, plan.record):
        list(pack_shard(plan.shards[1], again, packing, plan.key))
    kept = (again / plan.shards[1].name).stat()
    (again / ".shard-00000.parquet.123.tmp").write_bytes(b"half")
    assert missing_shards(plan, again) == [plan.shards[0], *plan.shards[2:]]
    pack(manifest, again, packing)
    assert files_of(again) == files_of(whole)
    after = (again / plan.shards[1].name).stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    before = files_of(whole)
    pack(manifest, whole, packing)
    assert files_of(whole) == before


def test_packings_are_never_mixed(manifest: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan, *_ = pack(manifest, out, Packing())
    before = files_of(out)
    with pytest.raises(DataError, match=r"another packing \(shard_bytes: 536870912 before, 9 now"):
        pack(manifest, out, Packing(shard_bytes=9))
    with pytest.raises(DataError, match="short_side: None before, 32 now"):
        pack(manifest, out, Packing(reencoding=Reencoding(short_side=32)))
    with pytest.raises(DataError, match=r"another packing \(manifest: "):
        pack(Manifest(manifest.table.slice(1), manifest.classes), out, Packing())
    video = tmp_path / "videos" / "0.mp4"
    content = video.read_bytes()
    video.write_bytes(content + b"more")
    with pytest.raises(DataError, match=r"another packing \(files: "):
        pack(manifest, out, Packing())
    video.write_bytes(content)
    assert files_of(out) == before
    other = tmp_path / "other"
    shutil.copytree(out, other)
    (other / "pack.json").write_text(json.dumps({**plan.record, "shard_bytes": 9}))
    with pytest.raises(DataError, match=r"shard-00000\.parquet is of another packing"):
        pack(manifest, other, Packing(shard_bytes=9))


def test_a_folder_of_something_else_is_left_alone(manifest: Manifest, tmp_path: Path) -> None:
    before = files_of(tmp_path / "videos")
    with pytest.raises(DataError, match="is not empty and holds no packing"):
        pack(manifest, tmp_path / "videos", Packing())
    with pytest.raises(DataError, match="is not empty and holds no packing"):
        pack(manifest, tmp_path / "m.parquet", Packing())
    assert files_of(tmp_path / "videos") == before


def test_one_packing_at_a_time(manifest: Manifest, tmp_path: Path) -> None:
    plan = plan_shards(manifest, Packing())
    with (
        claimed(tmp_path / "out", plan.record),
        pytest.raises(DataError, match="another process writes into"),
        claimed(tmp_path / "out", plan.record),
    ):
        pass


def test_packed_manifests_are_not_packed_again(manifest: Manifest, tmp_path: Path) -> None:
    _, packed, _ = pack(manifest, tmp_path / "out", Packing())
    with pytest.raises(DataError, match="lie in shards already"):
        plan_shards(packed, Packing())


@pytest.fixture
def bucket(tmp_path: Path, manifest: Manifest) -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "videos"), "/bucket", recursive=True)
    yield "memory://bucket"
    memory.rm("/bucket", recursive=True)


def test_videos_and_shards_at_a_url(manifest: Manifest, tmp_path: Path, bucket: str) -> None:
    place = SCHEMA.get_field_index("path")
    names = [Path(path).name for path in manifest.table["path"].to_pylist()]
    remote = manifest.table.set_column(
        place, SCHEMA.field("path"), pa.array([f"{bucket}/{name}" for name in names])
    )
    plan, packed, refused = pack(Manifest(remote, manifest.classes), tmp_path / "out", Packing())
    assert len(refused) == 0
    local, *_ = pack(manifest, tmp_path / "local", Packing())
    assert plan.record == local.record
    assert files_of(tmp_path / "out") == files_of(tmp_path / "local")
    fsspec.filesystem("memory").put(str(tmp_path / "out"), "/bucket/out", recursive=True)
    row = {**packed.table.to_pylist()[0], "shard": f"{bucket}/out/shard-00000.parquet"}
    expected = manifest.table.to_pylist()[0]
    assert (VIEWS.views(row) == VIEWS.views(expected)).all()
    assert (VIEWS.views(remote.to_pylist()[0]) == VIEWS.views(expected)).all()


def test_a_broken_packed_video_is_named_by_its_shard(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "videos" / "0.mp4").write_bytes(b"no video at all")
    _, packed, _ = pack(manifest, tmp_path / "out", Packing())
    with pytest.raises(DataError, match=r"^/[^:]*shard-00000\.parquet row 0: does not decode"):
        VIEWS.views(packed.table.to_pylist()[0])


def test_shards_hold_as_many_bytes_as_asked(tmp_path: Path) -> None:
    for name, size in {"a": 40, "b": 60, "c": 100, "d": 1, "e": 300, "f": 2}.items():
        (tmp_path / f"{name}.mp4").write_bytes(b"x" * size)
    videos = manifest_of(*((name, 0, "train") for name in "abcdef"), folder=str(tmp_path))
    plan = plan_shards(videos, Packing(shard_bytes=100))
    ids = [[file.video_id for file in shard.files] for shard in plan.shards]
    assert ids == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]
    assert plan.shard_of.tolist() == [0, 0, 1, 2, 3, 4]
    assert plan.row_of.tolist() == [0, 1, 0, 0, 0, 0]


def test_numbers_of_bytes() -> None:
    assert [parse_bytes(text) for text in ("1000", "3KiB", "512MiB", "2GiB")] == [
        1000,
        3072,
        2**29,
        2**31,
    ]
    for text in ("", "1.5MiB", "-1", "5MB", "MiB"):
        with pytest.raises(ConfigError, match="is no number of bytes: write one such as 512MiB"):
            parse_bytes(text)
    with pytest.raises(ConfigError, match="shards of 0 bytes"):
        Packing(shard_bytes=0)
