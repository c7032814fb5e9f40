from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from dsts_ray.models.draws import Draws
from dsts_ray.models.dsts import neurons as neurons_module
from dsts_ray.models.dsts.dispatch import Dispatch
from dsts_ray.models.dsts.module import DSTSLayer, DSTSModule
from dsts_ray.models.dsts.operators import FactorizedOperators, masked
from dsts_ray.models.dsts.synapse import Selection
from dsts_ray.models.dsts.variant import Variant


def modules(form: Mapping[str, Any] | None = None) -> tuple[DSTSModule, DSTSModule]:
    """A dense and a sparse module with the same weights."""
    dispatches: tuple[Dispatch, Dispatch] = ("dense", "sparse")
    common = {"num_neurons": 4, "groups": 2, "fuse_groups": 2, **(form or {})}
    dense, sparse = (
        DSTSModule(channels=8, num_layers=2, variant=Variant(dispatch=dispatch, **common)).double()
        for dispatch in dispatches
    )
    sparse.load_state_dict(dense.state_dict())
    return dense, sparse


def inputs(num: int) -> tuple[Tensor, Draws]:
    ids = torch.arange(num)
    return torch.randn(num, 8, 3, 4, 4, dtype=torch.float64), Draws(0, 0, "train", ids, ids)


Form = Mapping[str, Any]
FORMS: list[Form] = [
    {},
    {"impulse": "sum", "specialization": "conv3d", "width": 4},
    {"specialization": "fixed", "fuse": "per_neuron", "fuse_kernel": "1x3x3"},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("num", [1, 2, 7])
def test_dense_and_sparse_agree_in_training_and_at_test_time(form: Form, num: int) -> None:
    dense, sparse = modules(form)
    for _ in range(2):
        features, draws = inputs(num)
        one, other = dense.train()(features, draws), sparse.train()(features, draws)
        torch.testing.assert_close(one.features, other.features, rtol=1e-12, atol=1e-12)
    for name, value in dense.state_dict().items():
        torch.testing.assert_close(sparse.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    sparse.load_state_dict(dense.state_dict())
    features, _ = inputs(num)
    one, other = dense.eval()(features, None), sparse.eval()(features, None)
    assert torch.equal(one.features, other.features)


def test_computing_every_neuron_at_test_time_gives_the_same() -> None:
    for form in FORMS:
        module = modules(form)[0].eval()
        features, _ = inputs(5)
        expected = module(features, None).features
        for layer in module.layers:
            assert isinstance(layer, DSTSLayer)
            layer.neurons.test_dispatch = "dense"
        torch.testing.assert_close(module(features, None).features, expected)


def forget_idle_neurons(module: DSTSModule, selections: tuple[Selection, ...]) -> None:
    """Put NaN where a neuron that no sample activates keeps its convolutions."""
    for layer, selection in zip(module.layers, selections, strict=True):
        idle = ~torch.isin(torch.arange(4), selection.chosen)
        assert bool(idle.any())
        assert isinstance(layer, DSTSLayer)
        with torch.no_grad():
            for kernels in layer.neurons.operators.parameters():
                kernels[idle] = torch.nan
            if not layer.neurons.fuse.is_shared:
                layer.neurons.fuse.weight[idle] = torch.nan


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("num", [1, 3])
def test_at_test_time_only_chosen_neurons_are_computed(form: Form, num: int) -> None:
    dense = modules(form)[0].eval()
    features, _ = inputs(num)
    expected = dense(features, None)
    forget_idle_neurons(dense, expected.selections)
    assert torch.equal(dense(features, None).features, expected.features)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_sparse_dispatch_computes_no_idle_neuron_in_training(form: Form) -> None:
    sparse = modules(form)[1].train()
    features, draws = inputs(2)
    expected = sparse(features, draws)
    forget_idle_neurons(sparse, expected.selections)
    again = sparse(features, draws)
    assert bool(torch.isfinite(again.features).all())
    if form.get("impulse") != "running":
        torch.testing.assert_close(again.features, expected.features)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples times neurons of every convolution of an operator from now on."""
    found: list[int] = []

    def counted(features: Tensor, kernels: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401
        found.append(len(features) * len(kernels))
        return convolve(features, kernels, *rest)

    convolve = neurons_module.convolve
    monkeypatch.setattr(neurons_module, "convolve", counted)
    return found


def test_each_sample_passes_each_operator_of_one_neuron(sizes: list[int]) -> None:
    dense, _ = modules()
    for num in (1, 9):
        sizes.clear()
        features, _ = inputs(num)
        output = dense.eval()(features, None)
        num_chosen = sum(len(selection.chosen.unique()) for selection in output.selections)
        assert len(sizes) == 2 * num_chosen
        assert sum(sizes) == 2 * 2 * num


@pytest.mark.parametrize("index", [0, 1], ids=["dense", "sparse"])
def test_a_neuron_without_samples_uses_and_keeps_its_running_statistics(index: int) -> None:
    module = modules()[index].train()
    features, draws = inputs(2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    output = module(features, draws)
    for number, selection in enumerate(output.selections):
        used = torch.isin(torch.arange(4), selection.chosen)
        for kind in ("running_mean", "running_var"):
            name = f"layers.{number}.neurons.operator_norm.statistics.{kind}"
            same = (module.state_dict()[name] == before[name]).all(1)
            assert same.tolist() == (~used).tolist()
    assert bool(torch.isfinite(output.features).all())


def test_gates_send_a_channel_to_one_operator() -> None:
    operators = FactorizedOperators(channels=4, width=6, num_neurons=1, groups=1)
    gates = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    spatial, temporal = masked(operators.spatial, 1 - gates), masked(operators.temporal, gates)
    assert (spatial[0].abs().sum((0, 2, 3, 4)) > 0).tolist() == [False, True, False, True]
    assert (temporal[0].abs().sum((0, 2, 3, 4)) > 0).tolist() == [True, False, True, False]


def test_an_average_has_no_selection_and_the_same_size() -> None:
    (average, _), (module, _) = modules({"synapse": "average"}), modules()
    features, draws = inputs(3)
    assert average(features, draws).selections == ()
    assert average.eval()(features, None).selections == ()
    scoring = 2 * 4 * 8
    assert sum(p.numel() for p in average.parameters()) + scoring == sum(
        p.numel() for p in module.parameters()
    )


def test_bfloat16_autocast_keeps_selection_and_normalization_in_float32() -> None:
    dense, _ = modules()
    dense.float().train()
    features, draws = inputs(6)
    with torch.autocast("cpu", torch.bfloat16):
        output = dense(features.float(), draws)
    exact = dense(features.float(), draws)
    assert output.selections[0].impulses.dtype == torch.float32
    torch.testing.assert_close(output.selections[0].impulses, exact.selections[0].impulses)
    torch.testing.assert_close(output.features.float(), exact.features, rtol=0.1, atol=0.1)


def test_a_dense_pass_computes_no_more_than_a_sparse_one(sizes: list[int]) -> None:
    """Nor keeps it: neurons that are not activated are computed where their gradient is."""
    features, draws = inputs(5)
    for module in modules():
        sizes.clear()
        output = module.train()(features, draws)
        assert sum(sizes) == 2 * 2 * 5
    sizes.clear()
    dense, _ = modules()
    output = dense(features, draws)
    torch.autograd.grad(output.features.sum(), list(dense.parameters()))
    assert sum(sizes) == 4 * 2 * 2 * 5


def test_bfloat16_autocast_holds_where_gradients_are_computed_later() -> None:
    dense, _ = modules()
    dense.float().train()
    features, draws = inputs(6)
    kinds = []
    for autocast in (True, False):
        with torch.autocast("cpu", torch.bfloat16, autocast):
            output = dense(features.float(), draws)
        kinds.append(torch.autograd.grad(output.features.pow(2).sum(), list(dense.parameters())))
    for rounded, exact in zip(*kinds, strict=True):
        error = (rounded - exact).norm() / exact.norm()
        assert error < 0.1
