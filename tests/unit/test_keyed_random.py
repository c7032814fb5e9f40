import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dsts_ray import keyed_random
from dsts_ray.keyed_random import gumbel, key_of, normal, uniform

IDS = torch.arange(2000)

KEY = 1739333960989897007
UNIFORM = [[0.6850098509679671, 0.6659641476319677], [0.23306028973717463, 0.5003850013620256]]
NORMAL = 1.0352810272373874


def test_values_stay_the_same_for_ever() -> None:
    assert key_of(7, "gumbel", 0) == KEY
    assert uniform(KEY, torch.tensor([0, 1]), 2).tolist() == UNIFORM
    assert normal(KEY, torch.tensor([5]), 1).item() == pytest.approx(NORMAL, abs=1e-14)


def test_the_generator_is_splitmix64() -> None:
    """First outputs of the reference implementation for seed 1234567."""
    golden = keyed_random._signed(0x9E3779B97F4A7C15)
    states = 1234567 + torch.arange(1, 4) * golden
    outputs = [value % 2**64 for value in keyed_random._mix(states).tolist()]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_uniform_numbers_are_uniform_and_uncorrelated() -> None:
    draws = uniform(key_of("u"), IDS, 50)
    assert draws.dtype == torch.float64
    assert 0.0 < float(draws.min()) < float(draws.max()) < 1.0
    counts = torch.histc(draws, bins=20, min=0.0, max=1.0)
    expected = draws.numel() / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 43.8  # chi-square, 19, p = 0.001
    correlation = torch.corrcoef(draws.T) - torch.eye(50)
    assert float(correlation.abs().max()) < 5 / math.sqrt(len(IDS))
    neighbours = torch.corrcoef(torch.stack([draws[:-1].flatten(), draws[1:].flatten()]))[0, 1]
    assert abs(float(neighbours)) < 4 / math.sqrt(draws.numel())


def test_moments_of_normal_and_gumbel() -> None:
    sample = normal(key_of("n"), IDS, 50)
    assert abs(float(sample.mean())) < 0.015
    assert abs(float(sample.var()) - 1.0) < 0.02
    assert abs(float((sample**4).mean()) - 3.0) < 0.15
    sample = gumbel(key_of("g"), IDS, 50)
    assert abs(float(sample.mean()) - 0.5772) < 0.02
    assert abs(float(sample.var()) - math.pi**2 / 6) < 0.04


def test_no_draw_is_zero_or_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for bits in (0, -1):
        monkeypatch.setattr(keyed_random, "_mix", lambda x, bits=bits: torch.full_like(x, bits))
        value = uniform(1, torch.tensor([0]), 1)
        assert bool((value > 0) & (value < 1))
        assert bool(torch.isfinite(gumbel(1, torch.tensor([0]), 1)))


@pytest.mark.parametrize("draw", [uniform, normal, gumbel])
def test_a_draw_depends_on_key_and_id_alone(draw: Callable[[int, Tensor, int], Tensor]) -> None:
    whole = draw(3, IDS, 4)
    order = torch.randperm(len(IDS))
    assert torch.equal(draw(3, IDS[order], 4), whole[order])
    assert torch.equal(torch.cat([draw(3, part, 4) for part in IDS.split(7)]), whole)
    assert torch.equal(draw(3, IDS.view(40, 50), 4), whole.view(40, 50, 4))
    state = torch.get_rng_state()
    assert torch.equal(draw(3, IDS, 4), whole)
    assert torch.equal(torch.get_rng_state(), state)
    assert not bool((draw(4, IDS, 4) == whole).any())


def test_names_do_not_run_into_each_other() -> None:
    keys = {key_of(a, b, word) for a in range(30) for b in range(30) for word in ("x", "y")}
    assert len(keys) == 1800
    assert key_of(1, 23) != key_of(12, 3)
    assert all(-(2**63) <= key < 2**63 for key in keys)
