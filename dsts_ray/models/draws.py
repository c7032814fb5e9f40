"""Which random numbers a forward pass in training uses."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsts_ray import keyed_random

Role = Literal["train", "held_out"]


@dataclass(frozen=True)
class Draws:
    """Names the random draws of one pass, so that they depend on neither workers nor history.

    The simulated and the actual update of a step share the role ``train``: the decisions that Eq. 9
    simulates are taken with the noise that Eq. 11 then trains with. The held-out pass has its own.

    Attributes:
        seed: Seed of the run.
        step: Optimizer step, from 0.
        role: ``train`` or ``held_out``.
        sample_ids: Number of each sample in the data set, shape (batch,).
        positions: Row of each sample in the joined batch of all workers and micro-batches, shape
            (batch,).
    """

    seed: int
    step: int
    role: Role
    sample_ids: Int[Tensor, " batch"]
    positions: Int[Tensor, " batch"]

    def gumbel(self, layer: int, num_neurons: int) -> Float[Tensor, "batch neurons"]:
        """Gumbel noise of every sample and neuron (synapse)."""
        return keyed_random.gumbel(self._key("gumbel", layer), self.sample_ids, num_neurons)

    def gate_noise(
        self, layer: int, num_neurons: int, channels: int
    ) -> Float[Tensor, "neurons channels"]:
        """Standard normal noise of every gate, one draw per step (supplement Eq. 1)."""
        neurons = self.sample_ids.new_tensor(range(num_neurons))
        return keyed_random.normal(self._key("gates", layer), neurons, channels)

    def takes_binary_gates(self, layer: int) -> Bool[Tensor, " batch"]:
        """True for the half of the samples that use the binary gates b; the others use the real r.

        Halves alternate by row of the joined batch; a coin per step and layer says which half an
        odd last row falls to.
        """
        coin = keyed_random.key_of(self._key("half", layer)) & 1
        return (self.positions + coin) % 2 == 0

    def dropout(
        self, where: str, probability: float, features: int
    ) -> Float[Tensor, "batch features"]:
        """Dropout mask scaled to mean one; ``where`` tells several masks of a pass apart."""
        key = self._key(f"dropout of {where}", 0)
        kept = keyed_random.uniform(key, self.sample_ids, features) >= probability
        return kept.double() / (1.0 - probability)

    def _key(self, what: str, layer: int) -> int:
        return keyed_random.key_of(self.seed, self.step, self.role, what, layer)
