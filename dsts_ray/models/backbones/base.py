"""The seam between backbones and the rest."""

from collections.abc import Iterable, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from dsts_ray.models.backbones.output import BackboneOutput
from dsts_ray.models.draws import Draws


class Backbone(nn.Module):
    """Maps clips to features; a part of it can be kept as it is.

    Attributes:
        feature_channels: Channels of ``BackboneOutput.features``.
        pooled_channels: Length of ``BackboneOutput.pooled``, 0 for none.
    """

    feature_channels: int
    pooled_channels: int

    def __init__(self) -> None:
        """Create a backbone that trains as a whole."""
        super().__init__()
        self._in_evaluation_mode: list[nn.Module] = []

    def forward(
        self, clips: Float[Tensor, "batch 3 time height width"], draws: Draws | None = None
    ) -> BackboneOutput:
        """Compute features of normalized clips.

        ``draws`` names the random draws in training; without it there are none.
        """
        raise NotImplementedError

    def stages(self) -> Sequence[Iterable[nn.Module]]:
        """Return the modules of the stem and of every stage, from the input on."""
        raise NotImplementedError

    def freeze(self, num_stages: int) -> None:
        """Exclude the first stages from training: parameters, batch statistics, random draws.

        Args:
            num_stages: 0 for none, 1 for the stem, 1 + i for the stem and the first i stages.
        """
        for stage in self.stages()[:num_stages]:
            for module in stage:
                module.requires_grad_(False)
                self._in_evaluation_mode.append(module.eval())

    def keep_in_evaluation_mode(self, part: Literal["none", "trunk", "all"]) -> None:
        """Keep a part in evaluation mode while the rest trains; its parameters still train.

        Args:
            part: ``trunk`` is the stem and all stages.
        """
        trunk = (module for stage in self.stages() for module in stage)
        modules = {"none": (), "trunk": trunk, "all": self.children()}[part]
        self._in_evaluation_mode += [module.eval() for module in modules]

    def train(self, mode: bool = True) -> "Backbone":
        """Set training mode for all that is not kept in evaluation mode."""
        super().train(mode)
        for module in self._in_evaluation_mode:
            module.eval()
        return self
