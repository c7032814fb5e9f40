"""DSTS layer and module.

Reference: Li et al., ECCV 2022, section 3.1, Fig. 2 and 3; supplement sections 5, 7 and 10.

Differences from the paper: the fuse convolution is shared by a layer's neurons and grouped, after a
channel shuffle, so that the module has the size the paper states; ``fuse_groups=1`` makes it dense.
"""

from typing import NamedTuple

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsts_ray.models.draws import Draws
from dsts_ray.models.dsts.gates import Gates
from dsts_ray.models.dsts.neurons import Dispatch, SpecializedNeurons
from dsts_ray.models.dsts.synapse import ImpulseNormalization, Selection, Synapse

Features = Float[Tensor, "batch channels time height width"]


class DSTSOutput(NamedTuple):
    """Features for the classifier and the selection of every layer."""

    features: Features
    selections: tuple[Selection, ...]


class DSTSLayer(nn.Module):
    """Synapse, gates, specialized neurons and the fuse convolution of one layer."""

    def __init__(
        self,
        *,
        channels: int,
        num_neurons: int,
        groups: int,
        fuse_groups: int,
        channel_shuffle: bool,
        impulse: ImpulseNormalization,
        dispatch: Dispatch,
        temperature: float,
    ) -> None:
        """Create the layer; arguments as in :class:`DSTSModule`."""
        super().__init__()
        self.shuffle_groups = groups if channel_shuffle else 1
        self.synapse = Synapse(
            channels=channels, num_neurons=num_neurons, impulse=impulse, temperature=temperature
        )
        self.gates = Gates(channels=channels, num_neurons=num_neurons)
        self.neurons = SpecializedNeurons(
            channels=channels, num_neurons=num_neurons, groups=groups, dispatch=dispatch
        )
        self.fuse = nn.Conv3d(channels, channels, 1, groups=fuse_groups, bias=False)

    def forward(
        self, features: Features, draws: Draws | None, layer: int
    ) -> tuple[Features, Selection]:
        """Process X by the neuron each sample activates; ``draws`` is None at test time."""
        noise = None if draws is None else draws.gumbel(layer, len(self.gates.gates))
        selection = self.synapse(features, noise)
        combined = self.neurons(features, selection, self.gates(draws, layer))
        shuffled = rearrange(combined, "b (g c) t h w -> b (c g) t h w", g=self.shuffle_groups)
        return self.fuse(shuffled), selection


class DSTSModule(nn.Module):
    """L DSTS layers with one skip connection from the backbone's features to the output."""

    def __init__(
        self,
        *,
        channels: int,
        num_neurons: int,
        num_layers: int,
        groups: int,
        fuse_groups: int,
        channel_shuffle: bool = True,
        impulse: ImpulseNormalization = "standardized",
        dispatch: Dispatch = "dense",
        temperature: float = 1.0,
        skip: bool = True,
    ) -> None:
        """Create the module.

        Args:
            channels: N_in = N_out of every layer.
            num_neurons: N, specialized neurons in a layer.
            num_layers: L.
            groups: Of the spatial and temporal operators; divides ``channels``.
            fuse_groups: Of the fuse convolution; divides ``channels``.
            channel_shuffle: Shuffle channels before the fuse convolution.
            impulse: Normalization of the impulse.
            dispatch: Neurons computed in training.
            temperature: Of the Gumbel-softmax.
            skip: Add the backbone's features to the output.
        """
        super().__init__()
        self.skip = skip
        self.num_neurons = num_neurons
        self.layers = nn.ModuleList(
            DSTSLayer(
                channels=channels,
                num_neurons=num_neurons,
                groups=groups,
                fuse_groups=fuse_groups,
                channel_shuffle=channel_shuffle,
                impulse=impulse,
                dispatch=dispatch,
                temperature=temperature,
            )
            for _ in range(num_layers)
        )

    def forward(self, features: Features, draws: Draws | None) -> DSTSOutput:
        """Return the specialized features.

        ``draws`` names the noise in training and is None at test time.
        """
        specialized, selections = features, []
        for index, layer in enumerate(self.layers):
            specialized, selection = layer(specialized, draws, index)
            selections.append(selection)
        return DSTSOutput(features + specialized if self.skip else specialized, tuple(selections))
