import pytest
import torch

from dsts_ray.train.evaluate import joined, predict, score
from tests.support.tiny import copied_state, tiny_config, tiny_model
from tests.support.workers import test_block as block_of

CPU = torch.device("cpu")
BLOCKS = [
    block_of([2, 3], ["", "broken"]),
    block_of([0, 1], ["", ""]),
    block_of([4, -1], ["gone", "fills the last block"]),
    block_of([-1, -1], ["fills the last block"] * 2),
]


def test_rows_without_a_sample_are_left_out_and_refused_ones_are_zero() -> None:
    local = predict(tiny_model(tiny_config(), torch.float32), BLOCKS, CPU)
    assert sorted(local.sample_ids.tolist()) == [0, 1, 2, 3, 4]
    assert local.refused == ((3, "broken"), (4, "gone"))
    ordered = joined(local)
    assert ordered.sample_ids.tolist() == [0, 1, 2, 3, 4]
    assert ordered.labels.tolist() == [0, 1, 2, 3, 0]
    sums = ordered.probabilities.sum(1)
    torch.testing.assert_close(sums, torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]))
    assert ordered.chosen.shape == (5, 2)


def test_predictions_are_those_of_evaluation_mode_in_any_blocks() -> None:
    model = tiny_model(tiny_config(), torch.float32)
    before = copied_state(model)
    one = joined(predict(model, BLOCKS, CPU))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    singles = [block_of([i], ["broken" if i == 3 else "gone" if i == 4 else ""]) for i in range(5)]
    other = joined(predict(model, singles, CPU))
    torch.testing.assert_close(one.probabilities, other.probabilities, rtol=1e-5, atol=1e-6)
    assert torch.equal(one.chosen, other.chosen)


def test_refused_videos_count_as_errors() -> None:
    predictions = joined(predict(tiny_model(tiny_config(), torch.float32), BLOCKS, CPU))
    right = predictions._replace(
        probabilities=torch.eye(4)[predictions.labels]
        * (predictions.probabilities.sum(1) > 0)[:, None]
    )
    metrics = score(right, 3)
    assert metrics["val/top1"] == pytest.approx(3 / 5)
    assert metrics["val/mean_class_accuracy"] == pytest.approx((1 / 2 + 1 + 1 + 0) / 4)
    assert (metrics["val/num_videos"], metrics["val/num_refused"]) == (5.0, 2.0)
    assert {f"dsts/layer{i}/utilization" for i in range(2)} <= metrics.keys()


def test_a_plain_backbone_and_a_worker_without_rows() -> None:
    model = tiny_model(tiny_config("dsts.enabled=false", "udl.enabled=false"), torch.float32)
    predictions = predict(model, [block_of([-1, -1], ["x", "x"])], CPU)
    assert predictions.probabilities.shape == (0, 4)
    assert predictions.chosen.shape == (0, 0)
    metrics = score(joined(predict(model, BLOCKS, CPU)), 3)
    assert not any(name.startswith("dsts/") for name in metrics)
