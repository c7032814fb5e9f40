from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsts_ray.data.checks import REFUSED_SCHEMA
from dsts_ray.data.decoders import Rows
from dsts_ray.data.find import VIDEO_SCHEMA
from dsts_ray.data.manifest import write_parquet
from dsts_ray.launch.predict import whole_parts
from dsts_ray.launch.prediction_files import (
    PREDICTIONS,
    REFUSED,
    complete,
    missing_parts,
    part_path,
    part_table,
)

VIDEOS = pa.Table.from_pylist(
    [
        {"video_id": "one", "path": "/v/one.mp4", "start_frame": 0},
        {"video_id": "two", "shard": "/s/0.parquet", "row": 7, "start_frame": 0},
        {"video_id": "three", "path": "/v/three.mp4", "start_frame": 0},
    ],
    VIDEO_SCHEMA,
)
CLASSES = ("dive", "jump", "turn")


def block(*rows: tuple[int, int, int, float, str]) -> Rows:
    """A predicted block; a row is its video, first frame, end, frame rate, reason."""
    names = ("sample_id", "start_frame", "end_frame", "fps")
    columns = {name: np.array([row[i] for row in rows]) for i, name in enumerate(names)}
    return columns | {
        "reason": np.array([row[4] for row in rows], dtype=object),
        "labels": np.array([[2, 0]] * len(rows)),
        "probabilities": np.array([[0.75, 0.25]] * len(rows), np.float32),
        "neurons": np.array([[4, 1]] * len(rows)),
    }


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two parts of three: of video one two windows, of video two a refused one and another."""
    first = [block((0, 0, 8, 4.0, "")), block((0, 4, 12, 4.0, ""), (1, 0, 8, 0.0, "damaged"))]
    second = [block((1, 4, 12, 0.0, ""))]
    for part, blocks in ((0, first), (2, second)):
        write_parquet(part_table(blocks, VIDEOS, CLASSES), part_path(tmp_path, part))
    return tmp_path


def test_parts_become_two_files_when_the_last_is_there(out: Path) -> None:
    assert missing_parts(out, 3) == [1]
    write_parquet(part_table([block((2, -1, -1, 0.0, "gone"))], VIDEOS, CLASSES), part_path(out, 1))
    assert missing_parts(out, 3) == []
    counts = complete(out, 3, 3)
    assert counts == (3, 2, 3, 1, 2)
    rows = pq.read_table(out / PREDICTIONS).to_pylist()
    assert rows[1] == {
        "video_id": "one",
        "path": "/v/one.mp4",
        "start_frame": 4,
        "end_frame": 12,
        "start_s": 1.0,
        "end_s": 3.0,
        "classes": ["turn", "dive"],
        "probabilities": [0.75, 0.25],
        "neurons": [4, 1],
    }
    assert (rows[2]["path"], rows[2]["start_frame"]) == ("/s/0.parquet row 7", 4)
    assert (rows[2]["start_s"], rows[2]["end_s"]) == (None, None)
    refused = pq.read_table(out / REFUSED)
    assert refused.schema.names[: len(REFUSED_SCHEMA)] == REFUSED_SCHEMA.names
    told = [(row["video_id"], row["reason"], row["start_frame"]) for row in refused.to_pylist()]
    assert told == [("two", "damaged", 0), ("three", "gone", None)]
    assert sorted(path.name for path in out.iterdir()) == [PREDICTIONS, REFUSED]
    assert missing_parts(out, 3) == []
    assert complete(out, 3, 3) == counts


def test_an_end_while_files_are_joined_loses_nothing(out: Path) -> None:
    write_parquet(part_table([block((2, -1, -1, 0.0, "gone"))], VIDEOS, CLASSES), part_path(out, 1))
    complete_parts = {path: path.read_bytes() for path in out.rglob("*.parquet")}
    complete(out, 3, 3)
    (out / REFUSED).unlink()  # as if the process had ended before
    for path, content in complete_parts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert missing_parts(out, 3) == []
    assert complete(out, 3, 3) == (3, 2, 3, 1, 2)


def test_blocks_of_parts_are_put_in_order() -> None:
    def arrives(part: int, number: int, last: bool) -> Rows:
        return {
            name: np.array([value])
            for name, value in zip(("part", "block", "last"), (part, number, last), strict=True)
        }

    stream = [arrives(5, 1, False), arrives(3, 0, True), arrives(5, 2, True), arrives(5, 0, False)]
    parts = [
        (part, [int(rows["block"][0]) for rows in blocks]) for part, blocks in whole_parts(stream)
    ]
    assert parts == [(3, [0]), (5, [0, 1, 2])]
