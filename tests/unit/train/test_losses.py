import torch
from torch.nn import functional as F

from dsts_ray.train.losses import joined_cross_entropy


def test_the_mean_over_unequal_shards_is_the_joined_mean() -> None:
    logits, labels = torch.randn(7, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    weights = torch.tensor([1, 1, 0, 1, 1, 1, 1], dtype=torch.float64)
    num_workers = 2
    summands = [
        joined_cross_entropy(
            logits[rows],
            labels[rows],
            weights[rows],
            normalizer=weights.sum() / num_workers,
            label_smoothing=0.1,
        )
        for rows in (slice(0, 5), slice(5, 7))
    ]
    kept = weights > 0
    expected = F.cross_entropy(logits[kept], labels[kept], label_smoothing=0.1)
    torch.testing.assert_close(torch.stack(summands).mean(), expected)


def test_bfloat16_logits_give_a_float32_loss() -> None:
    loss = joined_cross_entropy(
        torch.randn(2, 3, dtype=torch.bfloat16),
        torch.tensor([0, 1]),
        torch.ones(2),
        normalizer=torch.tensor(2.0),
        label_smoothing=0.0,
    )
    assert loss.dtype == torch.float32
