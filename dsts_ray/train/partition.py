"""Which parameters UDL calls upstream and downstream (section 3.3)."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import nn

from dsts_ray.models.dsts.gates import Gates
from dsts_ray.models.dsts.operators import FactorizedOperators, VolumeOperator
from dsts_ray.models.dsts.scoring import ScoringKernels
from dsts_ray.models.recognizer import Classifier, Recognizer

SimulatedUpdate = Literal["operators", "module"]


class Partition(NamedTuple):
    """Parameter names, relative to the classifier.

    Attributes:
        upstream: Scoring kernels and gates, u.
        simulated: What the simulated update moves, d of Eq. 9.
    """

    upstream: tuple[str, ...]
    simulated: tuple[str, ...]


def partition_classifier(classifier: Classifier, covers: SimulatedUpdate) -> Partition:
    """Sort the classifier's parameters.

    Args:
        classifier: With or without DSTS.
        covers: ``operators``: the neurons' convolutions (S and T), the paper's letter; ``module``:
            everything but upstream.
    """
    upstream = _parameter_names(classifier, (ScoringKernels, Gates))
    if covers == "operators":
        simulated = _parameter_names(classifier, (FactorizedOperators, VolumeOperator))
    else:
        simulated = tuple(
            name for name, _ in classifier.named_parameters() if name not in set(upstream)
        )
    return Partition(upstream, simulated)


def upstream_parameters(model: Recognizer) -> dict[str, nn.Parameter]:
    """Return u by full name."""
    names = partition_classifier(model.classifier, "operators").upstream
    parameters = dict(model.classifier.named_parameters())
    return {f"classifier.{name}": parameters[name] for name in names}


def downstream_parameters(
    model: Recognizer, upstream: Mapping[str, nn.Parameter]
) -> dict[str, nn.Parameter]:
    """Return all other parameters that train, by full name; frozen ones do not."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name not in upstream and parameter.requires_grad
    }


def _parameter_names(root: nn.Module, kinds: tuple[type[nn.Module], ...]) -> tuple[str, ...]:
    return tuple(
        f"{prefix}.{name}"
        for prefix, module in root.named_modules()
        if isinstance(module, kinds)
        for name, _ in module.named_parameters(recurse=False)
    )
