"""The predict job: 500 clips of which some are broken, killed and continued; a few without Ray."""

import re
import runpy
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

import dsts_ray.launch.predict  # noqa: F401 - Ray's own modules call what a test replaces
from dsts_ray import predictor
from dsts_ray.build import build_view_spec
from dsts_ray.config.schema import Config
from dsts_ray.data.manifest import Manifest, write_parquet
from dsts_ray.launch.prediction_files import PREDICTIONS, RECORD, REFUSED
from dsts_ray.predictor import load_predictor
from tests.support.jobs import REPOSITORY, Home, RunJob, UntrainedModel, kill_tree, wait_for
from tests.support.lethal import LethalViewSpec
from tests.support.mutate import mutate
from tests.support.videos import write_audio, write_video

NUM_CLIPS, NUM_BROKEN = 500, 25
MARK = 0.125


class Folder(NamedTuple):
    """Clips and a long video: those that no decoder reads, and those that are damaged at random."""

    path: Path
    long_video: Path
    broken: set[str]
    damaged: set[str]


class Predicted(NamedTuple):
    """What came of predicting a folder, killed after its first part, in which a clip is marked."""

    out: Path
    killed_out: set[str]
    marked: str


@pytest.fixture(scope="module")
def clips(untrained: UntrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = tmp_path_factory.mktemp("clips")
    originals = [Path(path) for path in Manifest.read(untrained.manifest).table["path"].to_pylist()]
    contents = [path.read_bytes() for path in originals]
    audio = write_audio(folder / ".silence.mp4").read_bytes()
    unreadable = (b"", b"no video", contents[0][:40], bytes(len(contents[0])), audio)
    broken, damaged = set(), set()
    for number in range(NUM_CLIPS):
        original = originals[number % len(originals)]
        path = folder / f"{number % 7}" / f"clip{number:03d}{original.suffix}"
        path.parent.mkdir(exist_ok=True)
        if number % 20 == 3:
            path.write_bytes(unreadable[number // 20 % len(unreadable)])
            broken.add(str(path))
        elif number % 20 == 8:
            path.write_bytes(mutate(original.read_bytes(), number, contents)[1])
            damaged.add(str(path))
        else:
            path.hardlink_to(original)
    assert len(broken) == NUM_BROKEN
    long_video = write_video(folder / "long.mp4", num_frames=60, fps=10, width=64, height=64)
    return Folder(folder, long_video, broken, damaged)


@pytest.fixture(scope="module")
def predicted(
    clips: Folder,
    untrained: UntrainedModel,
    ray_cluster: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Predicted:
    home = Home(tmp_path_factory.mktemp("home"))
    out = home.work / "out"
    command = ("--model", str(untrained.folder), "--out", str(out), "--top", "2")
    command += ("--window", "2", str(clips.path))
    process = home.start("predict.py", *command)
    wait_for(process, lambda: list(out.glob("parts/*.parquet")))
    kill_tree(process)
    killed_out = {path.name for path in out.iterdir()}
    part = next(out.glob("parts/*.parquet"))
    table = pq.read_table(part)
    probabilities = table["probabilities"].to_pylist()
    row = next(number for number, values in enumerate(probabilities) if values)
    probabilities[row] = [MARK, MARK]
    place, field = table.schema.get_field_index("probabilities"), table.field("probabilities")
    write_parquet(table.set_column(place, field, pa.array(probabilities, field.type)), part)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home.work)
        patch.setattr(sys, "argv", ["predict.py", *command])
        assert runpy.run_path(str(REPOSITORY / "jobs" / "predict.py"))["main"]() == 0
    return Predicted(out, killed_out, table["path"][row].as_py())


def test_every_one_of_500_clips_is_accounted_for(clips: Folder, predicted: Predicted) -> None:
    predictions = pq.read_table(predicted.out / PREDICTIONS).to_pylist()
    refused = pq.read_table(predicted.out / REFUSED).to_pylist()
    paths = [row["path"] for row in predictions if row["path"] != str(clips.long_video)]
    paths += [row["path"] for row in refused]
    assert sorted(paths) == sorted(str(path) for path in clips.path.glob("*/*"))
    assert len(paths) == NUM_CLIPS
    without = {row["path"] for row in refused}
    assert clips.broken <= without <= clips.broken | clips.damaged
    assert {row["start_frame"] for row in refused if row["path"] in clips.broken} == {None}
    assert all(len(row["reason"]) > 10 for row in refused)
    assert {row["video_id"] == row["path"] for row in predictions} == {True}
    assert {len(row[name]) for row in predictions for name in ("classes", "neurons")} == {2}


def test_after_a_kill_it_goes_on_with_what_is_missing(
    predicted: Predicted, untrained: UntrainedModel
) -> None:
    assert predicted.killed_out == {RECORD, "parts"}
    assert {path.name for path in predicted.out.iterdir()} == {RECORD, PREDICTIONS, REFUSED}
    rows = pq.read_table(predicted.out / PREDICTIONS).to_pylist()
    marked = [row["path"] for row in rows if row["probabilities"] == [MARK, MARK]]
    assert marked == [predicted.marked]
    loaded = load_predictor(untrained.folder)
    for row in [row for row in rows if row["end_frame"] <= 12 and row["path"] not in marked][::40]:
        (alone,) = loaded.predict([row["path"]], top_k=2)
        assert row["classes"] == alone.classes
        assert row["probabilities"] == pytest.approx(alone.probabilities, abs=1e-5)
        assert row["neurons"] == alone.neurons


def test_a_folder_of_other_predictions_is_left_as_it_is(
    predicted: Predicted, clips: Folder, untrained: UntrainedModel, run_job: RunJob, tmp_path: Path
) -> None:
    def predict(*arguments: object) -> str:
        result = run_job("predict.py", "--model", untrained.folder, *arguments)
        assert result.code == 2
        return result.error

    before = {path: path.read_bytes() for path in predicted.out.iterdir()}
    same = ("--out", predicted.out, "--top", 2, "--window", 2, clips.path)
    assert "holds another prediction (top: 2 before, 3 now)" in predict(*same, "--top", 3)
    assert "(windows: {'window_s': 2.0, 'stride_s': 1.0} before" in predict(*same, "--window", 3)
    assert "(num_videos: 501 before, " in predict(*same[:-1], clips.path / "1")
    views = predict(*same, "--set", "evaluation.protocol=1x3")
    assert "num_crops" in views
    (tmp_path / "thesis.tex").touch()
    error = predict("--out", tmp_path, clips.path)
    assert "is not empty and holds no prediction: choose another --out" in error
    assert "501 videos are too many to show" in predict(clips.path)
    assert {path: path.read_bytes() for path in predicted.out.iterdir()} == before
    assert "--top is 0" in predict("--top", 0, clips.path)
    assert "no longer than the window" in predict(*same, "--stride", 3)


def test_a_long_video_among_them_comes_in_windows(clips: Folder, predicted: Predicted) -> None:
    rows = pq.read_table(predicted.out / PREDICTIONS).to_pylist()
    own = [row for row in rows if row["path"] == str(clips.long_video)]
    assert [row["start_s"] for row in own] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [row["end_frame"] for row in own] == [20, 30, 40, 50, 60]
    others = [row for row in rows if row["path"] != str(clips.long_video)]
    assert {row["start_frame"] for row in others} == {0}


def test_a_few_are_printed_without_ray(
    untrained: UntrainedModel, run_job: RunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*args: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ray, "init", started)
    monkeypatch.setattr(ray, "remote", started)

    def lethal(config: Config) -> LethalViewSpec:
        spec = asdict(build_view_spec(config))
        return LethalViewSpec(**spec, crashes="crashes.mp4", hangs="hangs.mp4")

    monkeypatch.setattr(predictor, "build_view_spec", lethal)
    crashes = write_video(tmp_path / "crashes.mp4", num_frames=10, fps=10)
    names = (crashes, untrained.manifest, "gone.mp4")
    result = run_job("predict.py", "--model", untrained.folder, "--split", "test", *names)
    assert result.code == 1, result.err
    assert result.out.count("active neurons: layer 0: ") == 8
    assert re.search("crashes.mp4: .* died at it", result.out)
    assert "work/gone.mp4: there is no such file" in result.out
