"""Eq. 9 and 10: against finite differences, a closed form, and a whole-network double backward."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from dsts_ray.data.batch import ClipBatch
from dsts_ray.models.backbones.output import BackboneOutput
from dsts_ray.models.batch_norm import frozen_statistics
from dsts_ray.models.draws import Draws
from dsts_ray.models.dsts.module import DSTSModule
from dsts_ray.models.dsts.variant import Variant
from dsts_ray.models.recognizer import Classifier, Recognition
from dsts_ray.train.losses import utilization_loss
from dsts_ray.train.partition import Partition, SimulatedUpdate, partition_classifier
from dsts_ray.train.udl import FeatureBatch, upstream_gradient
from tests.support import oracle
from tests.support.tiny import clip_batch, copied_state, tiny_config, tiny_model

INNER_LR = 0.5
STEP = 1e-5
"""Of the finite differences; small, so that no kink lies in between, and of fourth order, because
batch statistics of few samples curve the loss strongly."""
NUM_LAYERS, NUM_NEURONS, CHANNELS = 2, 3, 4
LABELS = {"train": [0, 1, 2, 1, 0], "held_out": [2, 0, 1, 1]}
Role = Literal["train", "held_out"]


VARIANTS = [
    oracle.Variant(groups=2, fuse_groups=2),
    oracle.Variant(groups=2, fuse_groups=2, dispatch="sparse"),
    oracle.Variant(specialization="conv3d", scoring_kernel="1x3x3", width=2, fuse_groups=2),
    oracle.Variant(specialization="fixed", scoring_rows="literal", dispatch="sparse"),
    oracle.Variant(synapse="average", fuse="per_neuron", groups=2),
    oracle.Variant(impulse="running", fuse="per_neuron", fuse_kernel="3x1x1", groups=4, skip=False),
]


def random_classifier(variant: oracle.Variant = VARIANTS[0]) -> Classifier:
    form = asdict(variant)
    skip = form.pop("skip")
    dsts = DSTSModule(
        channels=CHANNELS,
        num_layers=NUM_LAYERS,
        variant=Variant(num_neurons=NUM_NEURONS, **form),
        skip=skip,
    )
    classifier = Classifier(
        dsts=dsts, feature_channels=CHANNELS, pooled_channels=0, num_classes=3, dropout=0.0
    ).double()
    for name, value in classifier.state_dict().items():
        if value.is_floating_point():
            value.copy_(
                torch.rand_like(value) + 0.5 if "running_var" in name else torch.randn_like(value)
            )
    return classifier.train()


def feature_batch(role: Role) -> FeatureBatch:
    labels = torch.tensor(LABELS[role])
    ids = torch.arange(len(labels)) + (10 if role == "held_out" else 0)
    features = torch.randn(len(labels), CHANNELS, 2, 3, 2, dtype=torch.float64)
    return FeatureBatch(
        BackboneOutput(features),
        Draws(0, 7, role, ids, torch.arange(len(labels))),
        lambda logits: nn.functional.cross_entropy(logits, labels),
    )


def noises_of(draws: Draws) -> list[oracle.Noise]:
    return [
        oracle.Noise(
            draws.gumbel(layer, NUM_NEURONS),
            draws.gate_noise(layer, NUM_NEURONS, CHANNELS),
            draws.takes_binary_gates(layer).tolist(),
        )
        for layer in range(NUM_LAYERS)
    ]


def held_out_loss_through_eq9(
    classifier: Classifier,
    partition: Partition,
    batches: dict[Role, FeatureBatch],
    variant: oracle.Variant,
    *,
    first_order: bool,
) -> Callable[[dict[str, Tensor]], float]:
    """l(u-hat, d-hat(u); D_val) with u-hat and the piecewise constant parts held at u.

    With ``first_order`` u-hat moves with u.
    """
    values = copied_state(classifier)

    def loss(role: Role, changed: dict[str, Tensor], held: list[oracle.Held | None]) -> Tensor:
        logits, _ = oracle.classify(
            {**values, **changed},
            batches[role].output.features,
            noises_of(batches[role].draws),
            variant,
            num_layers=NUM_LAYERS,
            held=held,
        )
        return oracle.cross_entropy(logits, LABELS[role])

    def constants(role: Role, changed: dict[str, Tensor]) -> list[oracle.Held | None]:
        batch = batches[role]
        _, layers = oracle.classify(
            {**values, **changed},
            batch.output.features,
            noises_of(batch.draws),
            variant,
            num_layers=NUM_LAYERS,
        )
        return [layer.held for layer in layers]

    def simulated(upstream: dict[str, Tensor]) -> dict[str, Tensor]:
        downstream = {name: values[name].clone().requires_grad_() for name in partition.simulated}
        gradients = torch.autograd.grad(
            loss("train", {**upstream, **downstream}, held_in_training), list(downstream.values())
        )
        return {
            name: value.detach() - INNER_LR * gradient
            for (name, value), gradient in zip(downstream.items(), gradients, strict=True)
        }

    held_in_training = constants("train", {})
    held_in_validation = constants("held_out", simulated({}))
    return lambda upstream: float(
        loss(
            "held_out",
            {**(upstream if first_order else {}), **simulated(upstream)},
            held_in_validation,
        )
    )


@pytest.mark.parametrize(
    ("variant", "covers", "first_order"),
    [
        (VARIANTS[0], "operators", False),
        (VARIANTS[0], "module", True),
        (VARIANTS[1], "operators", True),
        (VARIANTS[1], "module", False),
        *((variant, "operators", False) for variant in VARIANTS[2:]),
    ],
)
def test_eq10_equals_central_finite_differences_through_eq9(
    variant: oracle.Variant, covers: SimulatedUpdate, *, first_order: bool
) -> None:
    torch.manual_seed(0)
    classifier = random_classifier(variant)
    partition = partition_classifier(classifier, covers)
    batches: dict[Role, FeatureBatch] = {
        "train": feature_batch("train"),
        "held_out": feature_batch("held_out"),
    }
    gradient = upstream_gradient(
        classifier,
        partition,
        train=[batches["train"]],
        held_out=[batches["held_out"]],
        inner_lr=INNER_LR,
        first_order=first_order,
    ).gradients
    differenced = held_out_loss_through_eq9(
        classifier, partition, batches, variant, first_order=first_order
    )
    values = copied_state(classifier)
    singles = [[name] for name in partition.upstream]
    each = (variant, covers) == (VARIANTS[0], "operators")
    for names in singles if each else [partition.upstream]:
        directions = {name: torch.randn_like(values[name]) for name in names}

        def at(offset: float, directions: dict[str, Tensor] = directions) -> float:
            moved = {key: values[key] for key in partition.upstream}
            for name, direction in directions.items():
                moved[name] = moved[name] + offset * direction
            return differenced(moved)

        slope = (8 * (at(STEP) - at(-STEP)) - (at(2 * STEP) - at(-2 * STEP))) / (12 * STEP)
        own = sum(float((gradient[name] * along).sum()) for name, along in directions.items())
        assert own == pytest.approx(slope, rel=1e-6), names


class QuadraticClassifier(Classifier):
    """Logits d and A u, so that losses in them are quadratic in u and d."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.upstream = nn.Parameter(torch.randn(4, dtype=torch.float64))
        self.downstream = nn.Parameter(torch.randn(3, dtype=torch.float64))
        self.matrix = torch.randn(3, 4, dtype=torch.float64)

    def forward(self, output: BackboneOutput, draws: Draws | None) -> Recognition:
        return Recognition(torch.stack([self.downstream, self.matrix @ self.upstream]), ())


def quadratic_batch(role: Role) -> FeatureBatch:
    ids = torch.zeros(1, dtype=torch.int64)
    return FeatureBatch(
        BackboneOutput(torch.zeros(1, 1, 1, 1, 1)),
        Draws(0, 0, role, ids, ids),
        lambda logits: 0.5 * ((logits[0] - logits[1]) ** 2).sum(),
    )


@pytest.mark.parametrize("first_order", [False, True])
def test_closed_form_of_a_quadratic_problem(*, first_order: bool) -> None:
    """Both losses are |d - A u|^2 / 2.

    So d-hat = d - alpha (d - A u), and Eq. 10 is alpha A' (d-hat - A u). The held-out loss also
    depends on u directly; that term, -A' (d-hat - A u), must be missing unless asked for.
    """
    classifier = QuadraticClassifier()
    result = upstream_gradient(
        classifier,
        Partition(("upstream",), ("downstream",)),
        train=[quadratic_batch("train")],
        held_out=[quadratic_batch("held_out")],
        inner_lr=INNER_LR,
        first_order=first_order,
    )
    target = classifier.matrix @ classifier.upstream
    residual = classifier.downstream - target
    moved = classifier.downstream - INNER_LR * residual
    factor = INNER_LR - 1.0 if first_order else INNER_LR
    expected = factor * classifier.matrix.T @ (moved - target)
    torch.testing.assert_close(result.gradients["upstream"], expected.detach(), rtol=1e-14, atol=0)
    assert float(result.simulated_loss) == pytest.approx(
        float(0.5 * residual.detach() @ residual.detach())
    )
    assert float(result.held_out_loss) == pytest.approx(0.25 * float(result.simulated_loss))


def gradient_of(
    classifier: Classifier, covers: SimulatedUpdate, inner_lr: float
) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return upstream_gradient(
        classifier,
        partition_classifier(classifier, covers),
        train=[feature_batch("train")],
        held_out=[feature_batch("held_out")],
        inner_lr=inner_lr,
    ).gradients


def test_without_an_inner_step_the_gradient_is_zero() -> None:
    gradients = gradient_of(random_classifier(), "operators", 0.0)
    assert not any(bool(gradient.any()) for gradient in gradients.values())


def test_the_gradient_reaches_every_upstream_parameter() -> None:
    gradients = gradient_of(random_classifier(), "operators", INNER_LR)
    assert len(gradients) == 2 * NUM_LAYERS
    assert all(float(gradient.norm()) > 1e-8 for gradient in gradients.values())


def test_a_penalty_adds_its_own_gradient_in_u() -> None:
    classifier = random_classifier()
    partition = partition_classifier(classifier, "operators")
    train, held_out = feature_batch("train"), feature_batch("held_out")

    def penalty(recognition: Recognition) -> Tensor:
        return 0.3 * utilization_loss(recognition.selections, temperature=1.0)

    without, with_penalty = (
        upstream_gradient(
            classifier,
            partition,
            train=[train],
            held_out=[held_out],
            inner_lr=INNER_LR,
            penalty=term,
        ).gradients
        for term in (None, penalty)
    )
    with frozen_statistics(classifier):
        penalty(classifier(train.output, train.draws)).backward()
    for name, parameter in classifier.named_parameters():
        if name in partition.upstream and parameter.grad is not None:
            torch.testing.assert_close(with_penalty[name] - without[name], parameter.grad)
    assert not torch.equal(*(g["dsts.layers.0.gates.gates"] for g in (without, with_penalty)))


@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[-1]], ids=str)
def test_nothing_but_the_result_changes(variant: oracle.Variant) -> None:
    classifier = random_classifier(variant)
    before, flags = copied_state(classifier), [p.requires_grad for p in classifier.parameters()]
    torch.manual_seed(1)
    batches = [feature_batch("train")], [feature_batch("held_out")]
    random_state = torch.get_rng_state()
    upstream_gradient(
        classifier,
        partition_classifier(classifier, "module"),
        train=batches[0],
        held_out=batches[1],
        inner_lr=INNER_LR,
    )
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert [p.requires_grad for p in classifier.parameters()] == flags
    assert all(p.grad is None for p in classifier.parameters())
    classifier(*batches[0][0][:2])  # statistics move again afterwards
    after = classifier.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in after if "running" in name)


def test_micro_batches_add_up() -> None:
    """With statistics of each micro-batch, the joined losses are the sums."""
    classifier = random_classifier(VARIANTS[1])
    train, held_out = feature_batch("train"), feature_batch("held_out")
    partition = partition_classifier(classifier, "operators")

    def gradient(times: int) -> dict[str, Tensor]:
        def scaled(batch: FeatureBatch) -> list[FeatureBatch]:
            criterion = batch.criterion
            return [batch._replace(criterion=lambda logits: criterion(logits) / times)] * times

        return upstream_gradient(
            classifier,
            partition,
            train=scaled(train),
            held_out=scaled(held_out),
            inner_lr=INNER_LR,
        ).gradients

    once, thrice = gradient(1), gradient(3)
    for name in once:
        torch.testing.assert_close(thrice[name], once[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("covers", "overrides"),
    [
        ("operators", ()),
        ("module", ()),
        ("operators", ("dsts.specialization=conv3d", "dsts.dispatch=sparse")),
        ("operators", ("dsts.synapse=average", "dsts.fuse=per_neuron")),
    ],
)
def test_a_double_backward_through_the_whole_network_gives_the_same(
    covers: SimulatedUpdate, overrides: tuple[str, ...]
) -> None:
    """Eq. 9-10 literally: the backbone stays in the graph, and d-hat keeps its history."""
    config = tiny_config(*overrides)
    model = tiny_model(config)
    for parameter in model.classifier.parameters():
        nn.init.normal_(parameter, std=0.5)
    batches: dict[Role, ClipBatch] = {
        "train": clip_batch(range(5)),
        "held_out": clip_batch(range(5, 9)),
    }
    draws: dict[Role, Draws] = {
        role: Draws(0, 0, role, batch.sample_ids, batch.positions)
        for role, batch in batches.items()
    }

    def loss(role: Role, changed: dict[str, Tensor]) -> Tensor:
        with frozen_statistics(model):
            logits = functional_call(model, changed, (batches[role].clips, draws[role])).logits
        return nn.functional.cross_entropy(logits, batches[role].labels)

    partition = partition_classifier(model.classifier, covers)
    parameters = dict(model.named_parameters())
    upstream = {
        f"classifier.{name}": parameters[f"classifier.{name}"] for name in partition.upstream
    }
    downstream = {
        f"classifier.{name}": parameters[f"classifier.{name}"] for name in partition.simulated
    }
    gradients = torch.autograd.grad(loss("train", {}), list(downstream.values()), create_graph=True)
    moved = {
        name: value - INNER_LR * gradient
        for (name, value), gradient in zip(downstream.items(), gradients, strict=True)
    }
    frozen = {name: value.detach() for name, value in upstream.items()}
    naive = torch.autograd.grad(loss("held_out", {**moved, **frozen}), list(upstream.values()))

    def features(role: Role) -> FeatureBatch:
        labels = batches[role].labels
        with torch.no_grad():
            output = model.backbone(batches[role].clips)
        return FeatureBatch(
            output, draws[role], lambda logits: nn.functional.cross_entropy(logits, labels)
        )

    ours = upstream_gradient(
        model.classifier,
        partition,
        train=[features("train")],
        held_out=[features("held_out")],
        inner_lr=INNER_LR,
    ).gradients
    for name, expected in zip(partition.upstream, naive, strict=True):
        assert float(expected.norm()) > 1e-7
        torch.testing.assert_close(ours[name], expected, rtol=1e-10, atol=1e-12)
