"""DSTS layer and module.

Reference: Li et al., ECCV 2022, section 3.1, Fig. 2 and 3; supplement sections 5 and 10.

Differences from the paper: those of the parts, each named in its file.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from dsts_ray.models.draws import Draws
from dsts_ray.models.dsts.fuse import Fuse
from dsts_ray.models.dsts.gates import FixedGates, Gates
from dsts_ray.models.dsts.neurons import SpecializedNeurons
from dsts_ray.models.dsts.operators import FactorizedOperators, VolumeOperator
from dsts_ray.models.dsts.synapse import Selection, Synapse
from dsts_ray.models.dsts.variant import Variant

Features = Float[Tensor, "batch channels time height width"]


class DSTSOutput(NamedTuple):
    """Features for the classifier and, with a synapse, the selection of every layer."""

    features: Features
    selections: tuple[Selection, ...]


class DSTSLayer(nn.Module):
    """Synapse, gates and specialized neurons of one layer."""

    def __init__(self, *, channels: int, variant: Variant) -> None:
        """Create the layer; N_in = N_out = ``channels``."""
        super().__init__()
        self.num_neurons = variant.num_neurons
        self.synapse = _synapse(channels, variant) if variant.synapse == "gumbel" else None
        kinds = {"gates": Gates, "fixed": FixedGates}
        self.gates = None
        if variant.specialization != "conv3d":
            kind = kinds[variant.specialization]
            self.gates = kind(channels=channels, num_neurons=variant.num_neurons)
        self.neurons = _neurons(channels, variant)

    def forward(
        self, features: Features, draws: Draws | None, layer: int
    ) -> tuple[Features, Selection | None]:
        """Process X by the neuron each sample activates; ``draws`` is None at test time."""
        selection = None
        if self.synapse is not None:
            noise = None if draws is None else draws.gumbel(layer, self.num_neurons)
            selection = self.synapse(features, noise)
        gates = None if self.gates is None else self.gates(draws, layer)
        return self.neurons(features, selection, gates), selection


class DSTSModule(nn.Module):
    """L DSTS layers with one skip connection from the backbone's features to the output."""

    def __init__(
        self, *, channels: int, num_layers: int, variant: Variant, skip: bool = True
    ) -> None:
        """Create the module.

        Args:
            channels: N_in = N_out of every layer.
            num_layers: L.
            variant: Form of every layer.
            skip: Add the backbone's features to the output.
        """
        super().__init__()
        self.skip = skip
        self.variant = variant
        self.layers = nn.ModuleList(
            DSTSLayer(channels=channels, variant=variant) for _ in range(num_layers)
        )

    @property
    def num_neurons(self) -> int:
        """N, specialized neurons in a layer."""
        return self.variant.num_neurons

    @property
    def num_selections(self) -> int:
        """Selections in the output: L, or 0 where all neurons are averaged."""
        return len(self.layers) if self.variant.synapse == "gumbel" else 0

    def spatial_ratios(self) -> list[list[float]]:
        """Share of channels that each neuron gives its spatial operator at test time, by layer.

        The rest goes to the temporal operator (supplement, Fig. 1). Empty without gates.
        """
        gates = [layer.gates for layer in self.layers if isinstance(layer, DSTSLayer)]
        return [
            (1.0 - own(None, index).binary.detach().mean(1)).tolist()
            for index, own in enumerate(gates)
            if own is not None
        ]

    def forward(self, features: Features, draws: Draws | None) -> DSTSOutput:
        """Return the specialized features.

        ``draws`` names the noise in training and is None at test time.
        """
        specialized, selections = features, []
        for index, layer in enumerate(self.layers):
            specialized, selection = layer(specialized, draws, index)
            if selection is not None:
                selections.append(selection)
        return DSTSOutput(features + specialized if self.skip else specialized, tuple(selections))


def _synapse(channels: int, variant: Variant) -> Synapse:
    return Synapse(
        channels=channels,
        num_neurons=variant.num_neurons,
        impulse=variant.impulse,
        kernel=variant.scoring_kernel,
        rows=variant.scoring_rows,
        impulse_deviation=variant.impulse_deviation,
        temperature=variant.temperature,
    )


def _neurons(channels: int, variant: Variant) -> SpecializedNeurons:
    width = variant.width or channels
    kind = VolumeOperator if variant.specialization == "conv3d" else FactorizedOperators
    operators = kind(
        channels=channels, width=width, num_neurons=variant.num_neurons, groups=variant.groups
    )
    fuse = Fuse(
        width=width,
        channels=channels,
        num_kernels=1 if variant.fuse == "shared" else variant.num_neurons,
        groups=variant.fuse_groups,
        kernel=variant.fuse_kernel,
        shuffle_groups=variant.groups if variant.channel_shuffle else 1,
    )
    return SpecializedNeurons(operators, fuse, dispatch=variant.dispatch)
