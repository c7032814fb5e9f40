import torch

from dsts_ray.models.dsts.neuron_norm import output_moments


def test_moments_are_those_of_torch_and_differentiate_twice() -> None:
    torch.manual_seed(0)
    output = torch.randn(2, 2, 3, 2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    mean, variance = output_moments([output])
    by_channel = output.transpose(1, 2).flatten(2, 3)
    expected = torch.var_mean(by_channel, (-3, -2, -1), correction=0)
    torch.testing.assert_close((variance, mean), expected)

    def moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return output_moments([values])

    torch.autograd.gradcheck(moments, (output,))
    torch.autograd.gradgradcheck(moments, (output,))


def test_moments_of_equal_values_have_a_gradient() -> None:
    output = torch.ones(1, 1, 1, 1, 2, 2, 2, requires_grad=True)
    mean, variance = output_moments([output])
    (gradient,) = torch.autograd.grad(mean.sum() + variance.sum(), output)
    assert torch.equal(gradient, torch.full_like(output, 1 / 8))
