import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
import pytest

from dsts_ray.data.demo import diving48
from dsts_ray.data.demo.diving48 import VOCABULARY, plan_clip, render_clip, write_diving48
from dsts_ray.errors import DataError

SMALL: dict[str, Any] = {
    "num_classes": 8,
    "num_train_clips": 20,
    "num_test_clips": 10,
    "size": 64,
    "min_frames": 10,
    "max_frames": 14,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diving48")
    write_diving48(folder, **SMALL, num_processes=2)
    return folder


def annotations(root: Path, split: str) -> list[dict[str, Any]]:
    return json.loads((root / f"Diving48_V2_{split}.json").read_text())


def test_layout_is_that_of_diving48_v2(root: Path) -> None:
    names = sorted(path.name for path in root.iterdir())
    assert names == [
        "Diving48_V2_test.json",
        "Diving48_V2_train.json",
        "Diving48_vocab.json",
        "rgb",
    ]
    vocabulary = json.loads((root / "Diving48_vocab.json").read_text())
    assert vocabulary[0] == ["Forward", "15som", "NoTwis", "PIKE"]
    assert len(vocabulary) == 8
    items = annotations(root, "train") + annotations(root, "test")
    assert {tuple(item) for item in items} == {("vid_name", "label", "start_frame", "end_frame")}
    videos = sorted(path.name for path in (root / "rgb").iterdir())
    assert videos == sorted(item["vid_name"] + ".mp4" for item in items)


def test_labels_are_balanced(root: Path) -> None:
    for split, count in (("train", 20), ("test", 10)):
        labels = Counter(item["label"] for item in annotations(root, split))
        assert set(labels) == set(range(8))
        assert sum(labels.values()) == count
        assert max(labels.values()) - min(labels.values()) <= 1


def test_sources_are_disjoint_and_hold_several_clips(root: Path) -> None:
    sources = {
        split: Counter(item["vid_name"].rsplit("_", 1)[0] for item in annotations(root, split))
        for split in ("train", "test")
    }
    assert not set(sources["train"]) & set(sources["test"])
    assert sources["train"].most_common(1)[0][1] == diving48.CLIPS_PER_SOURCE


def test_videos_are_h264_with_the_annotated_number_of_frames(root: Path) -> None:
    for item in annotations(root, "test"):
        path = root / "rgb" / (item["vid_name"] + ".mp4")
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert sum(1 for _ in container.decode(stream)) == item["end_frame"]
        reader = decord.VideoReader(str(path), num_threads=1)
        assert len(reader) == item["end_frame"] - item["start_frame"]
        assert reader[0].shape == (64, 64, 3)
        assert 10 <= len(reader) <= 14


def test_decoded_video_shows_the_rendered_frames(root: Path) -> None:
    labels = [item["label"] for item in annotations(root, "train")]
    clip = plan_clip(root, "train", 3, labels[3], 64, (10, 14), 0)
    reader = decord.VideoReader(str(clip.path), num_threads=1)
    decoded = reader.get_batch(range(len(reader))).asnumpy().astype(float)
    assert np.abs(decoded - render_clip(clip)).mean() < 12


def test_same_seed_writes_the_same_files_with_any_number_of_processes(
    root: Path, tmp_path: Path
) -> None:
    write_diving48(tmp_path, **SMALL, num_processes=1)
    for path in sorted(root.rglob("*.*")):
        again = tmp_path / path.relative_to(root)
        assert hashlib.sha256(again.read_bytes()).digest() == (
            hashlib.sha256(path.read_bytes()).digest()
        ), path.name


def test_same_seed_gives_the_same_pixels_and_another_seed_others(tmp_path: Path) -> None:
    clip = plan_clip(tmp_path, "train", 5, 2, 64, (10, 10), 7)
    np.testing.assert_array_equal(render_clip(clip), render_clip(clip))
    assert (render_clip(clip) != render_clip(clip._replace(seed=8))).mean() > 0.5
    assert (render_clip(clip) != render_clip(clip._replace(split=1))).mean() > 0.5


def test_clips_of_one_source_look_more_alike_than_clips_of_two(tmp_path: Path) -> None:
    def mean_colour(index: int) -> np.ndarray:
        clip = plan_clip(tmp_path, "train", index, 0, 64, (10, 10), 0)
        return render_clip(clip)[0].mean(axis=(0, 1))

    per_source = np.array([[mean_colour(8 * source + k) for k in range(2)] for source in range(6)])
    within = np.abs(per_source[:, 0] - per_source[:, 1]).mean()
    between = np.abs(per_source[:-1, 0] - per_source[1:, 0]).mean()
    assert within < between / 2


def test_vocabulary_has_48_different_classes_and_pairs_of_every_kind_among_the_first_8() -> None:
    assert len(set(VOCABULARY)) == 48
    differing = {
        tuple(field for field in first._fields if getattr(first, field) != getattr(second, field))
        for first in VOCABULARY[:8]
        for second in VOCABULARY[:8]
    }
    assert {("position",), ("somersaults",), ("twists",), ("takeoff",)} <= differing


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("num_classes", 49, "num_classes is 49; allowed is 2 to 48"),
        ("num_classes", 1, "num_classes is 1; allowed is 2 to 48"),
        ("num_train_clips", 7, "num_train_clips is 7; allowed is 8 to"),
        ("num_test_clips", 0, "num_test_clips is 0; allowed is 8 to"),
        ("size", 65, "size is 65; .* even"),
        ("size", 16, "size is 16; allowed is 64 to 720"),
        ("min_frames", 15, "min_frames is 15; allowed is 8 to 14"),
        ("seed", -1, "seed is -1; allowed is 0 to"),
        ("num_processes", 0, "num_processes is 0; allowed is 1 to"),
    ],
)
def test_parameters_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path, parameter: str, value: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_diving48(tmp_path / "data", **(SMALL | {parameter: value}))
    assert not (tmp_path / "data").exists()


def test_finished_data_set_is_not_overwritten(root: Path) -> None:
    with pytest.raises(DataError, match="already holds a data set"):
        write_diving48(root, **SMALL)


def test_interrupted_write_leaves_no_annotations_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = SMALL | {"num_train_clips": 8, "num_test_clips": 8, "num_processes": 1}
    written = []

    def write_three_clips(clip: diving48.Clip) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(clip)
        write_clip(clip)

    write_clip = diving48.write_clip
    monkeypatch.setattr(diving48, "write_clip", write_three_clips)
    with pytest.raises(KeyboardInterrupt):
        write_diving48(tmp_path, **parameters)
    assert not list(tmp_path.glob("*.json"))
    monkeypatch.undo()
    write_diving48(tmp_path, **parameters)
    assert len(annotations(tmp_path, "train")) == 8
