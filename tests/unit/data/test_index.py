import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from dsts_ray.data.demo.diving48 import write_diving48
from dsts_ray.data.demo.ssv2 import write_ssv2
from dsts_ray.data.index import IndexReport, index_dataset
from dsts_ray.data.manifest import Manifest
from dsts_ray.errors import ConfigError, DataError
from tests.support.videos import truncate, write_audio, write_video

REPOSITORY = Path(__file__).parents[3]


def index_list(root: Path, *lines: str, num_processes: int = 1) -> IndexReport:
    path = root / "list.csv"
    path.write_text("\n".join(lines))
    out = root / "out" / "m.parquet"
    return index_dataset(format="csv", root=path, out=out, num_processes=num_processes)


def refused_rows(root: Path) -> list[dict[str, str]]:
    return pq.read_table(root / "out" / "m.refused.parquet").to_pylist()


def test_good_videos_are_indexed_and_bad_ones_listed(tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4", num_frames=20, width=96, height=64, fps=12)
    write_video(tmp_path / "turned.mp4", rotation=90)
    write_video(tmp_path / "still.mp4", num_frames=1)
    write_audio(tmp_path / "audio.mp4")
    (tmp_path / "empty.mp4").touch()
    truncate(write_video(tmp_path / "cut.mp4"), 0.5)
    names = ("good", "turned", "still", "audio", "empty", "cut", "missing")
    report = index_list(tmp_path, *(f"{name}.mp4,dive,train" for name in names))

    manifest = Manifest.read(tmp_path / "out" / "m.parquet")
    assert manifest.classes == ("dive",)
    good, turned = manifest.table.to_pylist()
    assert good == {
        "video_id": "good.mp4",
        "split": "train",
        "label": 0,
        "group": "good.mp4",
        "path": str(tmp_path / "good.mp4"),
        "shard": None,
        "row": None,
        "start_frame": 0,
        "end_frame": 20,
        "num_frames": 20,
        "fps": 12.0,
        "width": 96,
        "height": 64,
        "rotation": 0,
    }
    assert (turned["width"], turned["height"], turned["rotation"]) == (48, 64, 270)

    assert (report.num_videos, report.num_refused) == (2, 5)
    assert report.counts == {"train": {"dive": 2}}
    assert report.refused_by_check == {"no file": 1, "unreadable": 4}
    reasons = {row["video_id"]: row["reason"] for row in refused_rows(tmp_path)}
    assert reasons.pop("missing.mp4") == "there is no such file"
    assert reasons.pop("empty.mp4") == "is empty (zero bytes)"
    assert reasons.pop("audio.mp4").startswith("has no video stream")
    assert reasons.pop("still.mp4").startswith("holds 1 frame")
    assert reasons.pop("cut.mp4").startswith("does not decode")
    assert not reasons
    assert {row["path"] for row in refused_rows(tmp_path)} == {
        str(tmp_path / f"{name}.mp4") for name in names[2:]
    }


def test_processes_give_the_same_manifest(tmp_path: Path) -> None:
    lines = [f"{index}.mp4,{index % 2}" for index in range(20)]
    for index in range(0, 20, 3):
        write_video(tmp_path / f"{index}.mp4", num_frames=3 + index)
    alone = index_list(tmp_path, *lines)
    table = Manifest.read(tmp_path / "out" / "m.parquet").table
    assert index_list(tmp_path, *lines, num_processes=2) == alone
    assert Manifest.read(tmp_path / "out" / "m.parquet").table.equals(table)


def test_the_list_of_refused_videos_is_written_when_empty(tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4")
    index_list(tmp_path, "good.mp4,0")
    assert refused_rows(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "m.parquet",
        "m.refused.parquet",
        "m.report.json",
    ]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("a.mp4,0", "b.mp4,0"), r"none of the 2 videos .*a\.mp4: there is no such file"),
        ((), "lists no video"),
    ],
)
def test_nothing_is_written_when_nothing_is_usable(
    tmp_path: Path, lines: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        index_list(tmp_path, *lines)
    assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]


def test_missing_root_and_unknown_format(tmp_path: Path) -> None:
    out = tmp_path / "m.parquet"
    with pytest.raises(DataError, match=r"there is no data set at .*nowhere"):
        index_dataset(format="ssv2", root=tmp_path / "nowhere", out=out)
    with pytest.raises(ConfigError, match="'ucf101': choose one of diving48, ssv2, csv, folder"):
        index_dataset(format="ucf101", root=tmp_path, out=out)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="version 'v1' is of Diving48's lists"):
        index_dataset(format="ssv2", root=tmp_path, out=out, version="v1")
    with pytest.raises(ConfigError, match=r"a folder of videos \(clips\) is told for csv's lists"):
        index_dataset(format="ssv2", root=tmp_path, out=out, videos="clips")
    assert list(tmp_path.iterdir()) == []


def test_ids_that_are_listed_several_times(tmp_path: Path) -> None:
    names = ("good", "again", "torn", "leaked", "twice")
    for name in names:
        write_video(tmp_path / f"{name}.mp4", num_frames=3)
    report = index_list(
        tmp_path,
        "good.mp4,a,train",
        "again.mp4,a,train",
        "again.mp4,a,train",
        "torn.mp4,a,train",
        "torn.mp4,b,train",
        "leaked.mp4,a,train",
        "leaked.mp4,a,test",
        "leaked.mp4,a,val",
        "twice.mp4,b,test",
        "twice.mp4,b,train",
        "twice.mp4,b,test",
    )
    table = Manifest.read(tmp_path / "out" / "m.parquet").table
    assert list(zip(table["video_id"].to_pylist(), table["split"].to_pylist(), strict=True)) == [
        ("good.mp4", "train"),
        ("again.mp4", "train"),
        ("leaked.mp4", "test"),
        ("twice.mp4", "test"),
    ]
    assert report.refused_by_check == {"contradiction": 2, "in two splits": 3, "listed again": 2}
    assert (report.num_annotated, report.num_refused) == (11, 7)
    torn, *_ = (row for row in refused_rows(tmp_path) if row["check"] == "contradiction")
    assert torn["reason"] == "listed 2 times with different labels, files or parts"


def test_one_file_under_several_ids_is_decoded_once_and_reported(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", num_frames=3)
    (tmp_path / "hard.mp4").hardlink_to(tmp_path / "a.mp4")
    (tmp_path / "soft.mp4").symlink_to(tmp_path / "a.mp4")
    write_video(tmp_path / "b.mp4", num_frames=3)
    write_video(tmp_path / "broken.mp4", num_frames=1)
    (tmp_path / "broken2.mp4").symlink_to(tmp_path / "broken.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nothing.mp4")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    names = ("a", "hard", "soft", "b", "broken", "broken2", "dangling", "folder", "pipe")
    splits = ("train", "train", "test", *["train"] * 6)
    report = index_list(
        tmp_path, *(f"{n}.mp4,x,{split}" for n, split in zip(names, splits, strict=True))
    )
    assert report.num_videos == 4
    assert report.refused_by_check == {"no file": 3, "unreadable": 2}
    (finding,) = report.warnings
    assert (finding.check, finding.number, finding.examples) == ("same file", 1, ("a.mp4",))
    assert "1 of them in several splits" in finding.text


def write_diving48_annotations(root: Path, train: list[dict[str, object]]) -> None:
    (root / "Diving48_V2_train.json").write_text(json.dumps(train))
    test = [{"vid_name": "source_9", "label": 0, "start_frame": 0, "end_frame": 12}]
    (root / "Diving48_V2_test.json").write_text(json.dumps(test))
    (root / "Diving48_vocab.json").write_text(
        '[["Back", "15som", "05Twis", "FREE"], ["Forward", "Dive", "NoTwis", "STR"]]'
    )


def test_a_release_is_checked_and_the_report_is_written(tmp_path: Path) -> None:
    part = {"label": 0, "start_frame": 0, "end_frame": 12}
    bad_label = {"vid_name": "other_0", **part, "label": 7}
    train = [{"vid_name": "source_0", **part}, {"vid_name": "source_1", **part}, bad_label]
    write_diving48_annotations(tmp_path, train)
    for name in ("source_0", "source_9", "other_0", "spare_0"):
        write_video(tmp_path / "rgb" / f"{name}.mp4", num_frames=12)
    out = tmp_path / "m.parquet"
    report = index_dataset(format="diving48", root=tmp_path, out=out, num_processes=1)
    assert report.counts == {
        "test": {"Back+15som+05Twis+FREE": 1},
        "train": {"Back+15som+05Twis+FREE": 1},
    }
    assert report.refused_by_check == {"label": 1, "no file": 1}
    assert [(found.check, found.number, found.examples) for found in report.warnings] == [
        ("source video", 1, ("source",)),
        ("empty class", 1, ("1 Forward+Dive+NoTwis+STR",)),
        ("not annotated", 1, (str(tmp_path / "rgb" / "spare_0.mp4"),)),
    ]
    written = json.loads((tmp_path / "m.report.json").read_text())
    assert written["refused_by_check"] == report.refused_by_check
    assert written["warnings"] == [
        {**found._asdict(), "examples": list(found.examples)} for found in report.warnings
    ]
    assert written["lists"] == list(report.lists)


def test_videos_at_a_url(tmp_path: Path) -> None:
    write_video(tmp_path / "run" / "1.mp4", num_frames=5)
    write_video(tmp_path / "jump" / "2.mp4", num_frames=6)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/bucket/videos", recursive=True)
    out = tmp_path / "m.parquet"
    try:
        root = "memory://bucket/videos"
        report = index_dataset(format="folder", root=root, out=out, num_processes=1)
    finally:
        memory.rm("/bucket", recursive=True)
    table = Manifest.read(out).table
    assert report.num_videos == 2
    assert table["path"].to_pylist() == [f"{root}/jump/2.mp4", f"{root}/run/1.mp4"]
    assert table["num_frames"].to_pylist() == [6, 5]


def test_annotated_parts_are_clipped_or_refused(tmp_path: Path) -> None:
    parts = {"whole_0": (0, 12), "inner_0": (2, 9), "late_0": (4, 50), "beyond_0": (12, 20)}
    for name in parts:
        write_video(tmp_path / "rgb" / f"{name}.mp4", num_frames=12)
    write_diving48_annotations(
        tmp_path,
        [
            {"vid_name": name, "label": 0, "start_frame": start, "end_frame": end}
            for name, (start, end) in parts.items()
        ],
    )
    out = tmp_path / "m.parquet"
    report = index_dataset(format="diving48", root=tmp_path, out=out, num_processes=1)
    table = Manifest.read(out).table
    columns = (table["video_id"], table["start_frame"], table["end_frame"])
    assert list(zip(*(column.to_pylist() for column in columns), strict=True)) == [
        ("whole_0", 0, 12),
        ("inner_0", 2, 9),
        ("late_0", 4, 12),
    ]
    assert report.refused_by_check == {"no file": 1, "part": 1}
    refused = pq.read_table(tmp_path / "m.refused.parquet")
    assert refused["reason"][0].as_py().startswith("annotated frames 12 to 20 leave 0 of the 12")


def test_demo_data_sets_are_indexed(tmp_path: Path) -> None:
    write_diving48(
        tmp_path / "diving48",
        num_classes=2,
        num_train_clips=4,
        num_test_clips=2,
        size=64,
        min_frames=8,
        max_frames=9,
        num_processes=1,
    )
    out = tmp_path / "diving48" / "m.parquet"
    report = index_dataset(format="diving48", root=tmp_path / "diving48", out=out, num_processes=1)
    assert report.num_refused == 0
    assert {split: sum(counts.values()) for split, counts in report.counts.items()} == {
        "train": 4,
        "test": 2,
    }
    for naming in ("20bn", "qualcomm"):
        root = tmp_path / naming
        write_ssv2(
            root,
            num_classes=2,
            num_train_clips=2,
            num_validation_clips=2,
            num_test_clips=2,
            size=64,
            min_frames=8,
            max_frames=9,
            num_processes=1,
            naming=naming,
        )
        report = index_dataset(format="ssv2", root=root, out=root / "m.parquet", num_processes=1)
        assert (report.num_videos, report.num_refused) == (6, 0)
        assert ("unknown" in report.counts["test"]) == (naming == "20bn")


def run_job(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "jobs" / "prepare_data.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_job_prints_counts_and_refused_files(tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4")
    (tmp_path / "list.csv").write_text("good.mp4,0\nbad.mp4,0\n")
    arguments = ["index", "--format", "csv", "--root", str(tmp_path / "list.csv"), "--out"]
    done = run_job(*arguments, str(tmp_path / "m.parquet"), "--num-processes", "1")
    assert done.returncode == 0, done.stderr
    assert "1 videos indexed, 1 refused" in done.stdout
    assert f"refused {tmp_path / 'bad.mp4'}: there is no such file" in done.stdout
    assert f"jobs/train.py --preset PRESET data.manifest={tmp_path / 'm.parquet'}" in done.stdout


def test_the_job_ends_in_one_line_on_bad_input(tmp_path: Path) -> None:
    arguments = ["--root", str(tmp_path / "nowhere"), "--out", str(tmp_path / "m.parquet")]
    done = run_job("index", "--format", "diving48", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no data set at")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
