"""The one model class the rest sees: backbone, DSTS, classifier."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsts_ray.models.backbones.base import Backbone
from dsts_ray.models.backbones.output import BackboneOutput
from dsts_ray.models.draws import Draws
from dsts_ray.models.dsts.module import DSTSModule
from dsts_ray.models.dsts.synapse import Selection


class Recognition(NamedTuple):
    """Logits and, for every DSTS layer, which neuron each sample activated."""

    logits: Float[Tensor, "batch classes"]
    selections: tuple[Selection, ...]


class Classifier(nn.Module):
    """All that follows the backbone: DSTS (or nothing), pooling, dropout, one linear layer.

    UDL differentiates this module alone, so nothing trainable but the linear layer follows DSTS.
    """

    def __init__(
        self,
        *,
        dsts: DSTSModule | None,
        feature_channels: int,
        pooled_channels: int,
        num_classes: int,
        dropout: float,
    ) -> None:
        """Create the classifier.

        Args:
            dsts: The DSTS module, or None for the plain backbone.
            feature_channels: Channels of ``BackboneOutput.features``.
            pooled_channels: Length of ``BackboneOutput.pooled``, 0 for none.
            num_classes: Classes.
            dropout: Probability before the linear layer, in [0, 1).
        """
        super().__init__()
        self.dsts = dsts
        self.dropout = dropout
        self.fc = nn.Linear(feature_channels + pooled_channels, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, output: BackboneOutput, draws: Draws | None) -> Recognition:
        """Classify backbone features.

        ``draws`` names the random draws in training and is None at test time.
        """
        features, selections = output.features, ()
        if self.dsts is not None:
            features, selections = self.dsts(features, draws)
        pooled = features.mean((2, 3, 4))
        if output.pooled is not None:
            pooled = torch.cat([pooled, output.pooled], dim=1)
        if draws is not None and self.dropout > 0:
            pooled = pooled * draws.dropout("classifier", self.dropout, pooled.shape[1]).to(pooled)
        return Recognition(self.fc(pooled), selections)


class Recognizer(nn.Module):
    """A backbone and a classifier."""

    def __init__(self, backbone: Backbone, classifier: Classifier) -> None:
        """Join the two."""
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def forward(
        self, clips: Float[Tensor, "batch 3 time height width"], draws: Draws | None = None
    ) -> Recognition:
        """Recognize normalized clips."""
        return self.classifier(self.backbone(clips, draws), draws)
