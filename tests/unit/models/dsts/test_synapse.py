import math

import pytest
import torch

from dsts_ray import keyed_random
from dsts_ray.models.dsts.synapse import Synapse
from tests.support.oracle import impulse_of


def test_the_collapsed_kernel_gives_the_literal_impulse() -> None:
    kernels = torch.randn(3, 7, 4, 1, 1, dtype=torch.float64)
    features = torch.randn(2, 4, 3, 2, 5, dtype=torch.float64)
    synapse = Synapse(channels=4, num_neurons=3, impulse="sum").double()
    synapse.scoring.kernels.data = kernels.sum(1)
    literal = torch.stack(
        [torch.stack([impulse_of(kernel, sample) for kernel in kernels]) for sample in features]
    )
    torch.testing.assert_close(synapse(features, None).impulses, literal, rtol=1e-12, atol=1e-12)


def test_gradient_of_each_literal_row_is_that_of_the_collapsed_vector() -> None:
    kernel = torch.randn(7, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    sample = torch.randn(4, 3, 2, 5, dtype=torch.float64)
    impulse_of(kernel, sample).backward()
    assert kernel.grad is not None
    torch.testing.assert_close(kernel.grad, sample.sum((1, 2, 3))[:, None, None].expand(7, 4, 1, 1))


def test_the_collapsed_vector_starts_as_the_sum_of_kaiming_uniform_rows() -> None:
    rows = torch.nn.Conv3d(256, 256, 1, bias=False).weight.flatten(1)
    own = Synapse(channels=64, num_neurons=200).scoring.kernels
    assert float(own.std().detach()) == pytest.approx(1 / math.sqrt(3), rel=0.03)
    assert float(rows.sum(0).std().detach()) == pytest.approx(1 / math.sqrt(3), rel=0.15)


def test_ties_go_to_the_lower_index() -> None:
    synapse = Synapse(channels=2, num_neurons=4, impulse="sum")
    synapse.scoring.kernels.data = (
        torch.tensor([0.0, 1.0, 1.0, 1.0]).view(4, 1, 1, 1).expand(4, 2, 1, 1)
    )
    features = torch.ones(3, 2, 1, 1, 1)
    assert synapse(features, None).chosen.tolist() == [1, 1, 1]
    assert synapse(features, torch.zeros(3, 4)).chosen.tolist() == [1, 1, 1]


def test_noise_alone_chooses_uniformly() -> None:
    synapse = Synapse(channels=2, num_neurons=4, impulse="sum")
    torch.nn.init.zeros_(synapse.scoring.kernels)
    noise = keyed_random.gumbel(1, torch.arange(4000), 4)
    chosen = synapse(torch.ones(4000, 2, 1, 1, 1), noise).chosen
    shares = torch.bincount(chosen, minlength=4) / 4000
    assert float((shares - 0.25).abs().max()) < 0.03


def test_weights_are_one_hot_with_the_gradient_of_the_softmax() -> None:
    synapse = Synapse(channels=2, num_neurons=3, impulse="mean", temperature=0.7).double()
    features = torch.randn(4, 2, 2, 2, 2, dtype=torch.float64)
    noise, probe = torch.randn(2, 4, 3, dtype=torch.float64)
    selection = synapse(features, noise)
    assert torch.equal(selection.weights.sum(1).round(decimals=12), torch.ones(4).double())
    assert torch.equal(selection.weights.argmax(1), selection.chosen)
    (gradient,) = torch.autograd.grad((selection.weights * probe).sum(), synapse.scoring.kernels)
    soft = ((synapse(features, noise).impulses + noise) / 0.7).softmax(1)
    (expected,) = torch.autograd.grad((soft * probe).sum(), synapse.scoring.kernels)
    torch.testing.assert_close(gradient, expected)


def test_standardizing_makes_the_selection_independent_of_scale() -> None:
    synapse = Synapse(channels=4, num_neurons=3).double()
    features = torch.randn(6, 4, 2, 2, 2, dtype=torch.float64)
    noise = torch.randn(6, 3, dtype=torch.float64)
    small, large = synapse(features, noise), synapse(1e3 * features, noise)
    torch.testing.assert_close(small.impulses, large.impulses, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(small.impulses.mean(0), torch.zeros(3).double())
    torch.testing.assert_close(
        small.impulses.var(0, unbiased=False), torch.ones(3).double(), rtol=1e-3, atol=0
    )
