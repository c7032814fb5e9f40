import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dsts_ray.models.draws import Draws
from dsts_ray.models.dsts import neurons as neurons_module
from dsts_ray.models.dsts.module import DSTSModule
from dsts_ray.models.dsts.neurons import Dispatch, SpecializedNeurons
from dsts_ray.models.dsts.synapse import ImpulseNormalization


def modules(impulse: ImpulseNormalization = "standardized") -> tuple[DSTSModule, DSTSModule]:
    """A dense and a sparse module with the same weights."""
    dispatches: tuple[Dispatch, Dispatch] = ("dense", "sparse")
    dense, sparse = (
        DSTSModule(
            channels=8,
            num_neurons=4,
            num_layers=2,
            groups=2,
            fuse_groups=2,
            impulse=impulse,
            dispatch=dispatch,
        ).double()
        for dispatch in dispatches
    )
    sparse.load_state_dict(dense.state_dict())
    return dense, sparse


def inputs(num: int) -> tuple[Tensor, Draws]:
    ids = torch.arange(num)
    return torch.randn(num, 8, 3, 4, 4, dtype=torch.float64), Draws(0, 0, "train", ids, ids)


@pytest.mark.parametrize("impulse", ["sum", "standardized"])
@pytest.mark.parametrize("num", [1, 2, 7])
def test_dense_and_sparse_agree_in_training_and_at_test_time(
    impulse: ImpulseNormalization, num: int
) -> None:
    dense, sparse = modules(impulse)
    for _ in range(2):
        features, draws = inputs(num)
        one, other = dense.train()(features, draws), sparse.train()(features, draws)
        torch.testing.assert_close(one.features, other.features, rtol=1e-12, atol=1e-12)
    for name, value in dense.state_dict().items():
        torch.testing.assert_close(sparse.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    features, _ = inputs(num)
    one, other = dense.eval()(features, None), sparse.eval()(features, None)
    assert torch.equal(one.features, other.features)


def test_at_test_time_only_chosen_neurons_are_computed() -> None:
    dense, _ = modules()
    dense.eval()
    features, _ = inputs(3)
    expected = dense(features, None)
    for layer, selection in zip(dense.layers, expected.selections, strict=True):
        idle = ~torch.isin(torch.arange(4), selection.chosen)
        assert bool(idle.any())
        neurons = layer.neurons
        assert isinstance(neurons, SpecializedNeurons)
        with torch.no_grad():
            neurons.spatial[idle] = torch.nan
            neurons.temporal[idle] = torch.nan
    assert torch.equal(dense(features, None).features, expected.features)


def test_one_convolution_per_chosen_neuron_and_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, _ = modules()
    sizes: list[int] = []

    def counted(features: Tensor, kernels: Tensor, groups: int) -> Tensor:
        sizes.append(len(features))
        padding = [size // 2 for size in kernels.shape[-3:]]
        return F.conv3d(features, kernels, padding=padding, groups=groups)

    monkeypatch.setattr(neurons_module, "_convolve", counted)
    features, _ = inputs(9)
    output = dense.eval()(features, None)
    num_chosen = sum(len(selection.chosen.unique()) for selection in output.selections)
    assert len(sizes) == 2 * num_chosen
    assert sum(sizes) == 2 * 2 * 9


@pytest.mark.parametrize("index", [0, 1], ids=["dense", "sparse"])
def test_a_neuron_without_samples_uses_and_keeps_its_running_statistics(index: int) -> None:
    module = modules()[index].train()
    features, draws = inputs(2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    output = module(features, draws)
    for number, selection in enumerate(output.selections):
        used = torch.isin(torch.arange(4), selection.chosen)
        for operator in ("spatial", "temporal"):
            for kind in ("running_mean", "running_var"):
                name = f"layers.{number}.neurons.{operator}_norm.statistics.{kind}"
                same = (module.state_dict()[name] == before[name]).all(1)
                assert same.tolist() == (~used).tolist()
    assert bool(torch.isfinite(output.features).all())


def test_gates_send_a_channel_to_one_operator() -> None:
    neurons = SpecializedNeurons(channels=4, num_neurons=1, groups=1, dispatch="sparse")
    gates = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    spatial = neurons_module._masked(neurons.spatial, 1 - gates)
    temporal = neurons_module._masked(neurons.temporal, gates)
    assert (spatial[0].abs().sum((0, 2, 3, 4)) > 0).tolist() == [False, True, False, True]
    assert (temporal[0].abs().sum((0, 2, 3, 4)) > 0).tolist() == [True, False, True, False]


def test_sparse_dispatch_computes_no_idle_neuron_in_training() -> None:
    _, sparse = modules()
    sparse.train()
    features, draws = inputs(2)
    expected = sparse(features, draws)
    for layer, selection in zip(sparse.layers, expected.selections, strict=True):
        neurons = layer.neurons
        assert isinstance(neurons, SpecializedNeurons)
        with torch.no_grad():
            neurons.spatial[~torch.isin(torch.arange(4), selection.chosen)] = torch.nan
    assert torch.equal(sparse(features, draws).features, expected.features)


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
