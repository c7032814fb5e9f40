import json
from collections import Counter
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
import pytest

from dsts_ray.data.demo import ssv2
from dsts_ray.data.demo.encode import write_vp9
from dsts_ray.data.demo.ssv2 import ACTIONS, plan_clips, render_clip, write_ssv2
from dsts_ray.errors import DataError

SMALL: dict[str, Any] = {
    "num_classes": 8,
    "num_train_clips": 12,
    "num_validation_clips": 8,
    "num_test_clips": 8,
    "size": 64,
    "min_frames": 10,
    "max_frames": 12,
    "num_processes": 1,
}
Release = tuple[Path, str]
COUNTS = {"train": 14, "validation": 14, "test": 14}


@pytest.fixture(scope="module", params=["20bn", "qualcomm"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp(request.param)
    write_ssv2(folder, **SMALL, naming=request.param)
    return folder, ssv2.NAMINGS[request.param]


def read(release: Release, split: str) -> list[dict[str, Any]]:
    root, pattern = release
    return json.loads((root / pattern.format(split)).read_text())


def read_labels(release: Release) -> dict[str, str]:
    root, pattern = release
    return json.loads((root / pattern.format("labels")).read_text())


def without_brackets(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def test_template_without_brackets_names_the_class(release: Release) -> None:
    labels = read_labels(release)
    assert set(labels.values()) == {str(index) for index in range(8)}
    for split in ("train", "validation"):
        items = read(release, split)
        assert {tuple(item) for item in items} == {("id", "label", "template", "placeholders")}
        classes = Counter(int(labels[without_brackets(item["template"])]) for item in items)
        assert set(classes) == set(range(8))
        assert max(classes.values()) - min(classes.values()) <= 1


def test_captions_fill_the_placeholders_in(release: Release) -> None:
    for item in read(release, "train"):
        caption = item["template"]
        for placeholder in item["placeholders"]:
            caption = caption.replace("[something]", placeholder, 1)
        assert caption.lower() == item["label"].lower()
        assert "[" not in item["label"]


def test_test_items_hold_ids_alone_and_qualcomm_publishes_the_answers(release: Release) -> None:
    root, _ = release
    items = read(release, "test")
    assert {tuple(item) for item in items} == {("id",)}
    answers = root / "labels" / "test-answers.csv"
    assert answers.exists() == (root / "labels").exists()
    if answers.exists():
        rows = dict(line.split(";") for line in answers.read_text().splitlines())
        assert set(rows) == {item["id"] for item in items}
        assert set(rows.values()) == set(read_labels(release))


def test_ids_are_unique_over_the_splits_and_every_video_exists(release: Release) -> None:
    root, _ = release
    ids = [item["id"] for split in ssv2.SPLITS for item in read(release, split)]
    assert len(ids) == len(set(ids)) == 28
    videos = {path.name for path in (root / ssv2.VIDEO_FOLDER).iterdir()}
    assert videos == {f"{video_id}.webm" for video_id in ids}


def test_videos_are_vp9_at_12_frames_per_second_and_decord_counts_the_same_frames(
    release: Release,
) -> None:
    root, _ = release
    for item in read(release, "validation"):
        path = root / ssv2.VIDEO_FOLDER / f"{item['id']}.webm"
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name in ("vp9", "libvpx-vp9")
            assert stream.average_rate == 12
            num_frames = sum(1 for _ in container.decode(stream))
        assert 10 <= num_frames <= 12
        reader = decord.VideoReader(str(path), num_threads=1)
        assert len(reader) == num_frames
        assert reader[0].shape == (64, 84, 3)


def test_same_seed_gives_the_same_pixels_and_another_seed_others(tmp_path: Path) -> None:
    clips = plan_clips(tmp_path, COUNTS, 14, 64, (10, 12), 3)
    again = plan_clips(tmp_path, COUNTS, 14, 64, (10, 12), 3)
    assert clips == again
    for first, second in zip(clips["train"], again["train"], strict=True):
        np.testing.assert_array_equal(render_clip(first), render_clip(second))
    clip = clips["train"][0]
    assert (render_clip(clip)[:10] != render_clip(clip._replace(seed=4))[:10]).mean() > 0.5


def test_same_frames_give_the_same_webm_bytes(tmp_path: Path) -> None:
    clip = plan_clips(tmp_path, COUNTS, 14, 64, (10, 12), 3)["train"][0]
    for name in ("first.webm", "second.webm"):
        write_vp9(tmp_path / name, render_clip(clip), fps=12)
    assert (tmp_path / "first.webm").read_bytes() == (tmp_path / "second.webm").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.webm", "second.webm"]


def test_object_shape_tells_rolling_from_sliding(tmp_path: Path) -> None:
    for clip in plan_clips(tmp_path, COUNTS, 8, 64, (10, 12), 0)["train"]:
        if ACTIONS[clip.label].motion == "descend":
            assert (clip.shapes == ("ball",)) == ("roll down" in ACTIONS[clip.label].template)


def test_two_placeholders_get_two_objects(tmp_path: Path) -> None:
    for clip in plan_clips(tmp_path, COUNTS, 14, 64, (10, 12), 0)["train"]:
        assert len(clip.shapes) == ACTIONS[clip.label].template.count("[something]")


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("num_classes", 15, "num_classes is 15; allowed is 2 to 14"),
        ("num_validation_clips", 3, "num_validation_clips is 3; allowed is 8 to"),
        ("naming", "kinetics", "naming is 'kinetics'; allowed are 20bn, qualcomm"),
    ],
)
def test_parameters_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path, parameter: str, value: int | str, message: str
) -> None:
    parameters: dict[str, Any] = SMALL | {parameter: value}
    with pytest.raises(DataError, match=message):
        write_ssv2(tmp_path / "data", **parameters)
    assert not (tmp_path / "data").exists()


def test_finished_data_set_is_not_overwritten_under_either_naming(release: Release) -> None:
    root, _ = release
    for naming in ssv2.NAMINGS:
        parameters: dict[str, Any] = SMALL | {"naming": naming}
        with pytest.raises(DataError, match="already holds a data set"):
            write_ssv2(root, **parameters)
