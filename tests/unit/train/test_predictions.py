import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dsts_ray.errors import DataError
from dsts_ray.train.evaluate import Predictions, score
from dsts_ray.train.predictions import (
    SavedPredictions,
    fuse,
    read_predictions,
    write_predictions,
)
from tests.support.predictions import ROWS, SAVED, SETUP


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_predictions(SAVED, tmp_path / "p.parquet")
    return tmp_path / "p.parquet"


def same(one: Predictions, other: Predictions) -> bool:
    tensors = ("labels", "probabilities", "views_seen", "chosen")
    equal = all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)
    return equal and dict(one.refused) == dict(other.refused)


def test_what_is_written_is_read_back_and_scores_the_same(path: Path) -> None:
    read = read_predictions(path)
    assert same(read.predictions, ROWS)
    assert replace(read, predictions=ROWS) == SAVED
    assert score(read.predictions, classes=SAVED.classes, num_neurons=5) == score(
        ROWS, classes=SAVED.classes, num_neurons=5
    )
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_file_explains_itself(path: Path) -> None:
    table = pq.read_table(path)
    assert table.slice(2, 1).drop_columns("probabilities").to_pylist() == [
        {
            "video_id": "c",
            "label": 1,
            "views_expected": 2,
            "views_seen": 1,
            "neurons_layer0": [2, -1],
            "neurons_layer1": [2, -1],
            "refused": None,
        }
    ]
    content = json.loads((table.schema.metadata or {})[b"dsts_ray.predictions"])
    assert content["setup"]["protocol"] == "2x1"
    assert content["classes"] == ["x", "y", "z"]


def test_predictions_without_neurons(tmp_path: Path) -> None:
    plain = replace(ROWS, chosen=torch.zeros(3, 2, 0, dtype=torch.int64))
    write_predictions(replace(SAVED, predictions=plain), tmp_path / "p.parquet")
    assert same(read_predictions(tmp_path / "p.parquet").predictions, plain)


def test_a_missing_or_damaged_file_is_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no prediction file at .*absent"):
        read_predictions(tmp_path / "absent.parquet")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"p\.parquet is not a readable Parquet file"):
        read_predictions(path)


def change(table: pa.Table, name: str, values: object) -> pa.Table:
    position = table.column_names.index(name)
    return table.set_column(position, name, pa.array(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: table.replace_schema_metadata({}), "holds no predictions"),
        (lambda table: table.drop_columns("label"), "lacks columns label"),
        (lambda table: table.slice(0, 0), "lacks rows"),
        (lambda table: change(table, "label", [0, 1, 3]), "label 3, allowed are 0 to 2"),
        (lambda table: change(table, "video_id", ["a", "b", "a"]), "more than once"),
        (
            lambda table: change(table, "probabilities", [[0.5, 0.5], [0.0, 0.0], [1.0, 0.0]]),
            r"shape \(3, 2\) for 3 videos and 3 classes",
        ),
        (lambda table: change(table, "probabilities", [[1.0], [0.0], []]), "types or lengths"),
        (lambda table: change(table, "probabilities", [[1.0] * 3] * 3), "do not sum to 1"),
        (lambda table: change(table, "views_expected", [2, 3, 2]), "types or lengths"),
    ],
)
def test_rows_that_contradict_their_classes_are_refused(
    path: Path, damage: Callable[[pa.Table], pa.Table], message: str
) -> None:
    table = pq.read_table(path)
    metadata = table.schema.metadata
    damaged = damage(table)
    if damaged.schema.metadata:
        damaged = damaged.replace_schema_metadata(metadata)
    pq.write_table(damaged, path)
    with pytest.raises(DataError, match=message):
        read_predictions(path)


def reordered(saved: SavedPredictions, order: list[int]) -> SavedPredictions:
    rows = saved.predictions
    return replace(
        saved,
        video_ids=tuple(saved.video_ids[row] for row in order),
        predictions=Predictions(
            rows.labels[order],
            rows.probabilities[order],
            rows.views_seen[order],
            rows.chosen[order],
            {new: rows.refused[row] for new, row in enumerate(order) if row in rows.refused},
        ),
    )


def test_fusing_averages_by_video_whatever_the_order() -> None:
    rows = replace(
        ROWS,
        probabilities=torch.tensor([[0.1, 0.9, 0.0], [0.2, 0.2, 0.6], [0.5, 0.5, 0.0]]),
        views_seen=torch.tensor([2, 2, 2]),
        refused={},
    )
    other = replace(
        SAVED, setup=replace(SETUP, model="models:/swin/1", protocol="1x3"), predictions=rows
    )
    for second in (other, reordered(other, [2, 0, 1])):
        fused = fuse(SAVED, second)
        assert fused.video_ids == SAVED.video_ids
        expected = torch.tensor([[0.4, 0.55, 0.05], [0.0, 0.0, 0.0], [0.4, 0.55, 0.05]])
        torch.testing.assert_close(fused.predictions.probabilities, expected)
        assert fused.predictions.refused == {1: "b.mp4: is empty"}
        assert fused.predictions.views_seen.tolist() == [4, 0, 3]
        assert fused.predictions.num_views == 4
        assert fused.setup.model == "models:/tpn/3 + models:/swin/1"
        assert (fused.setup.protocol, fused.setup.split) == ("2x1 + 1x3", "test")
    turned = fuse(reordered(other, [2, 0, 1]), SAVED)
    assert turned.predictions.refused == {2: "b.mp4: is empty"}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(SAVED, classes=("x", "y", "w")), r"classes differ: 3 \(x, y, z"),
        (replace(SAVED, setup=replace(SETUP, split="val")), "splits differ: 'test' and 'val'"),
        (replace(SAVED, video_ids=("a", "b", "d")), "videos differ: 2 .* as 'c'"),
        (
            replace(SAVED, predictions=replace(ROWS, labels=torch.tensor([0, 2, 2]))),
            "labels of 1 videos differ, as of 'c'",
        ),
    ],
)
def test_only_predictions_of_the_same_videos_fuse(other: SavedPredictions, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fuse(SAVED, other)
