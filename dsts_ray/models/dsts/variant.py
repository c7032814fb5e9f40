"""The forms of a DSTS layer that the paper compares, and ours."""

from dataclasses import dataclass
from typing import Literal

from dsts_ray.models.dsts.dispatch import Dispatch
from dsts_ray.models.dsts.fuse import FuseKernel
from dsts_ray.models.dsts.scoring import ScoringKernel, ScoringRows
from dsts_ray.models.dsts.synapse import ImpulseNormalization


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Form of a layer; ``groups=1, fuse="per_neuron", impulse="sum"`` is the paper's letter.

    Attributes:
        num_neurons: N, specialized neurons in a layer.
        specialization: Operators behind learned gates (``gates``), behind two fixed halves of the
            channels (``fixed``), or one 3x3x3 convolution (``conv3d``).
        synapse: Activate one neuron per sample (``gumbel``) or average all of them (``average``).
        scoring_kernel: Shape of the scoring kernels.
        scoring_rows: Their storage.
        impulse: Normalization of the impulse.
        impulse_deviation: Standard deviation of standardized impulses, above 0.
        temperature: Of the Gumbel-softmax, above 0.
        dispatch: Neurons computed in training; ``average`` computes all of them in either.
        width: Outputs of each operator; 0 for the features' channels.
        groups: Of the operators; divides channels and width.
        fuse: One fuse convolution for all neurons of a layer, or one per neuron.
        fuse_groups: Of the fuse convolution; divides channels and width.
        fuse_kernel: Shape of the fuse convolution.
        channel_shuffle: Deal the operators' groups in turn before the fuse convolution.
    """

    num_neurons: int
    specialization: Literal["gates", "fixed", "conv3d"] = "gates"
    synapse: Literal["gumbel", "average"] = "gumbel"
    scoring_kernel: ScoringKernel = "1x1x1"
    scoring_rows: ScoringRows = "collapsed"
    impulse: ImpulseNormalization = "standardized"
    impulse_deviation: float = 1.0
    temperature: float = 1.0
    dispatch: Dispatch = "dense"
    width: int = 0
    groups: int = 1
    fuse: Literal["shared", "per_neuron"] = "shared"
    fuse_groups: int = 1
    fuse_kernel: FuseKernel = "1x1x1"
    channel_shuffle: bool = True
