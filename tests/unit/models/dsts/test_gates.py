import torch

from dsts_ray.models.draws import Draws
from dsts_ray.models.dsts.gates import Gates
from tests.support.oracle import saturating_sigmoid


def draws(num: int, *, step: int = 0) -> Draws:
    return Draws(0, step, "train", torch.arange(num) + 5, torch.arange(num))


def test_binary_gates_are_binary_and_carry_the_gradient_of_the_real_ones() -> None:
    gates = Gates(channels=40, num_neurons=3).double()
    sample = gates(draws(4), layer=1)
    assert sample.real is not None
    noisy = gates.gates + draws(4).gate_noise(1, 3, 40)
    assert torch.equal(sample.binary.detach().round(decimals=12), (noisy > 0).double())
    torch.testing.assert_close(sample.real, saturating_sigmoid(noisy))
    probe = torch.randn(3, 40, dtype=torch.float64)
    (through_binary,) = torch.autograd.grad((sample.binary * probe).sum(), gates.gates)
    (through_real,) = torch.autograd.grad(
        (saturating_sigmoid(gates.gates + draws(4).gate_noise(1, 3, 40)) * probe).sum(), gates.gates
    )
    torch.testing.assert_close(through_binary, through_real)


def test_real_gates_saturate() -> None:
    gates = Gates(channels=2, num_neurons=1).double()
    gates.gates.data = torch.tensor([[-60.0, 60.0]], dtype=torch.float64)
    sample = gates(draws(2), layer=0)
    assert sample.real is not None
    assert sample.real.tolist() == [[0.0, 1.0]]


def test_at_test_time_there_is_no_noise_and_only_the_binary_gate() -> None:
    gates = Gates(channels=50, num_neurons=2)
    sample = gates(None, layer=0)
    assert sample.real is None
    assert sample.takes_binary is None
    assert torch.equal(sample.binary, (gates.gates > 0).float())


def test_half_of_the_samples_take_the_binary_gates() -> None:
    counts = set()
    for step in range(20):
        assert int(draws(8, step=step).takes_binary_gates(0).sum()) == 4
        counts.add(int(draws(7, step=step).takes_binary_gates(0).sum()))
    assert counts == {3, 4}


def test_halves_differ_from_layer_to_layer() -> None:
    firsts = {bool(draws(2).takes_binary_gates(layer)[0]) for layer in range(20)}
    assert firsts == {True, False}


def test_draws_are_named_by_seed_step_role_layer_and_sample() -> None:
    ids, positions = torch.arange(3), torch.arange(3)
    base = Draws(0, 0, "train", ids, positions).gumbel(0, 4)
    assert torch.equal(base, Draws(0, 0, "train", ids, positions + 1).gumbel(0, 4))
    for other in (
        Draws(1, 0, "train", ids, positions).gumbel(0, 4),
        Draws(0, 1, "train", ids, positions).gumbel(0, 4),
        Draws(0, 0, "held_out", ids, positions).gumbel(0, 4),
        Draws(0, 0, "train", ids, positions).gumbel(1, 4),
        Draws(0, 0, "train", ids + 3, positions).gumbel(0, 4),
    ):
        assert not bool((base == other).any())


def test_dropout_masks_have_mean_one() -> None:
    mask = Draws(0, 0, "train", torch.arange(500), torch.arange(500)).dropout("classifier", 0.2, 50)
    assert sorted(set(mask.flatten().tolist())) == [0.0, 1.25]
    assert abs(float(mask.mean()) - 1.0) < 0.01
