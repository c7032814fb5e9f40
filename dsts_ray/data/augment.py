"""Random changes of training clips on the device, the same for all frames of a clip.

A clip's draws are named by seed, joined batch and sample, so they do not depend on the number of
workers, nor on the other clips of a micro-batch.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dsts_ray import keyed_random
from dsts_ray.data.batch import ClipBatch, normalized
from dsts_ray.data.photometry import color_jitter, rand_augment
from dsts_ray.errors import ConfigError

_ERASE_AREA = (0.02, 1 / 3)
_ERASE_RATIO = (0.3, 1 / 0.3)
_NUM_ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Mirrors, colour jitter, RandAugment, normalization, random erasing, in this order.

    Attributes:
        flip_probability: Share of clips mirrored left to right, in [0, 1].
        flip_labels: Pairs of classes that a mirrored clip changes between.
        color_jitter: Largest change of brightness, contrast, saturation and hue.
        rand_augment_operations: Operations of RandAugment, 0 for none.
        rand_augment_magnitude: Of these operations, in [0, 30].
        erase_probability: Share of clips with an erased box, in [0, 1].
        seed: Of the run.
    """

    flip_probability: float = 0.0
    flip_labels: tuple[tuple[int, int], ...] = ()
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    rand_augment_operations: int = 0
    rand_augment_magnitude: int = 0
    erase_probability: float = 0.0
    seed: int = 0

    def __call__(self, batch: ClipBatch, *, step: int) -> ClipBatch:
        """Augment and normalize a batch of uint8 clips of this joined batch."""
        batch = flip(
            batch,
            probability=self.flip_probability,
            labels=self.flip_labels,
            seed=self.seed,
            step=step,
        )
        batch = normalized(self._recolored(batch, step))
        return erase(batch, probability=self.erase_probability, seed=self.seed, step=step)

    def _recolored(self, batch: ClipBatch, step: int) -> ClipBatch:
        jitters, num_operations = any(self.color_jitter), self.rand_augment_operations
        if not jitters and not num_operations:
            return batch
        ids = batch.sample_ids.cpu()
        clips = list(batch.clips)
        if jitters:
            draws = keyed_random.uniform(self._key(step, "color jitter"), ids, 8).tolist()
            clips = [
                color_jitter(clip, self.color_jitter, row)
                for clip, row in zip(clips, draws, strict=True)
            ]
        if num_operations:
            key = self._key(step, "rand augment")
            draws = keyed_random.uniform(key, ids, 2 * num_operations).tolist()
            clips = [
                rand_augment(clip, self.rand_augment_magnitude, row)
                for clip, row in zip(clips, draws, strict=True)
            ]
        return replace(batch, clips=torch.stack(clips))

    def _key(self, step: int, purpose: str) -> int:
        return keyed_random.key_of(self.seed, step, purpose)


def check_flip_labels(pairs: tuple[tuple[int, int], ...], num_classes: int) -> None:
    """Refuse pairs of classes that a data set does not have.

    Raises:
        ConfigError: A pair names a class outside [0, num_classes).
    """
    largest = max((label for pair in pairs for label in pair), default=-1)
    if largest >= num_classes:
        raise ConfigError(
            f"augment.flip_labels names class {largest}, the data set has {num_classes} classes, "
            f"0 to {num_classes - 1}; give its own pairs, or augment.flip_labels=[] for none"
        )


def flip(
    batch: ClipBatch,
    *,
    probability: float,
    labels: tuple[tuple[int, int], ...] = (),
    seed: int,
    step: int,
) -> ClipBatch:
    """Mirror clips left to right, each with the same probability.

    Args:
        batch: On any device.
        probability: In [0, 1].
        labels: Pairs of classes; a mirrored clip of one has the other's label.
        seed: Of the run.
        step: Joined batch.
    """
    draws = keyed_random.uniform(keyed_random.key_of(seed, step, "flip"), batch.sample_ids, 1)
    mirrored = draws[:, 0] < probability
    mirror_labels = batch.labels.clone()
    for one, other in labels:
        mirror_labels[batch.labels == one] = other
        mirror_labels[batch.labels == other] = one
    return replace(
        batch,
        clips=torch.where(mirrored[:, None, None, None, None], batch.clips.flip(-1), batch.clips),
        labels=torch.where(mirrored, mirror_labels, batch.labels),
    )


def erase(batch: ClipBatch, *, probability: float, seed: int, step: int) -> ClipBatch:
    """Set a random box of normalized clips to zero, ImageNet's mean (Zhong et al., 2020).

    Of ten boxes of 2 % to 33 % of the area and a width over height between 0.3 and 3.3, the first
    that fits is taken; where none fits, the clip stays as it is.

    Args:
        batch: On any device.
        probability: Share of clips that are changed, in [0, 1].
        seed: Of the run.
        step: Joined batch.
    """
    if probability == 0.0:
        return batch
    height, width = batch.clips.shape[-2:]
    key = keyed_random.key_of(seed, step, "erase")
    draws = keyed_random.uniform(key, batch.sample_ids, 4 * _NUM_ATTEMPTS + 1)
    chosen, attempts = draws[:, 0] < probability, draws[:, 1:].unflatten(1, (4, _NUM_ATTEMPTS))
    area = height * width * _between(attempts[:, 0], *_ERASE_AREA)
    ratio = _between(attempts[:, 1], *map(math.log, _ERASE_RATIO)).exp()
    heights, widths = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(1, keepdim=True)
    box_height, box_width, down, across = (
        values.gather(1, first) for values in (heights, widths, attempts[:, 2], attempts[:, 3])
    )
    top = (down * (height - box_height + 1)).floor()
    left = (across * (width - box_width + 1)).floor()
    rows = torch.arange(height, device=draws.device)
    columns = torch.arange(width, device=draws.device)
    in_rows = (rows >= top) & (rows < top + box_height)
    in_columns = (columns >= left) & (columns < left + box_width)
    erased = in_rows[:, :, None] & in_columns[:, None, :]
    erased &= (chosen & fits.any(1))[:, None, None]
    return replace(batch, clips=batch.clips.masked_fill(erased[:, None, None], 0.0))


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draws
