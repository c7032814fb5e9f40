import numpy as np
import pytest
import torch

from dsts_ray.data.batch import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ClipBatch,
    normalize,
    select,
    to_device,
)
from dsts_ray.data.order import NO_SAMPLE

CPU = torch.device("cpu")


def rows(reasons: list[str]) -> dict[str, np.ndarray]:
    num = len(reasons)
    clips = np.random.default_rng(0).integers(0, 256, (num, 2, 4, 6, 3), dtype=np.uint8)
    return {
        "clip": clips,
        "label": np.arange(num) + 5,
        "sample_id": np.arange(num) + 10,
        "position": np.arange(num) * 2,
        "reason": np.array(reasons, dtype=object),
    }


def test_clips_become_normalized_channels_first() -> None:
    given = rows(["", ""])
    batch = to_device(given, CPU)
    assert batch.clips.shape == (2, 3, 2, 4, 6)
    assert batch.clips.is_contiguous()
    value = given["clip"][1, 0, 2, 3, 1] / 255
    expected = (value - IMAGENET_MEAN[1]) / IMAGENET_STD[1]
    assert float(batch.clips[1, 1, 0, 2, 3]) == pytest.approx(expected, abs=1e-5)
    assert batch.labels.tolist() == [5, 6]
    assert batch.sample_ids.tolist() == [10, 11]
    assert batch.positions.tolist() == [0, 2]
    assert batch.weights.tolist() == [1.0, 1.0]


def test_refused_clips_are_left_out_and_named() -> None:
    batch = to_device(rows(["", "broken", "", "empty"]), CPU)
    assert batch.sample_ids.tolist() == [10, 12]
    assert batch.weights.tolist() == [1.0, 1.0]
    assert batch.refused == ((11, "broken"), (13, "empty"))


def test_rows_without_a_sample_are_left_out_and_not_refused() -> None:
    given = rows(["", "fills the block"])
    given["sample_id"][1] = NO_SAMPLE
    batch = to_device(given, CPU)
    assert (batch.sample_ids.tolist(), batch.refused) == ([10], ())


def test_a_batch_of_refused_clips_keeps_a_row_that_does_not_count() -> None:
    batch = to_device(rows(["broken", "empty"]), CPU)
    assert (len(batch), batch.weights.tolist()) == (1, [0.0])
    assert len(batch.refused) == 2


def test_white_and_black_pixels() -> None:
    white = normalize(torch.full((1, 3), 255, dtype=torch.uint8))
    expected = [(1 - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    torch.testing.assert_close(white, torch.tensor([expected]))


def batch_of(num: int) -> ClipBatch:
    return to_device(rows([""] * num), CPU)


def test_select_keeps_rows_in_order() -> None:
    kept = select(batch_of(4), torch.tensor([False, True, False, True]))
    assert kept.sample_ids.tolist() == [11, 13]
    assert kept.weights.tolist() == [1.0, 1.0]


def test_selecting_nothing_keeps_a_row_that_does_not_count() -> None:
    kept = select(batch_of(3), torch.zeros(3, dtype=torch.bool))
    assert (kept.sample_ids.tolist(), kept.weights.tolist()) == ([10], [0.0])
