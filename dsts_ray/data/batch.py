"""Clips of one micro-batch, from the stream to the device."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, Num
from torch import Tensor

from dsts_ray.data.order import NO_SAMPLE

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ClipBatch:
    """A micro-batch on the training device.

    Attributes:
        clips: (batch, 3, time, height, width), normalized; uint8 before augmentation.
        labels: Class of each sample.
        sample_ids: Row of each sample in the manifest's split.
        positions: Row of each sample in the joined batch.
        weights: 1 for a clip that counts, 0 for one that does not.
        refused: (sample id, reason) of the clips that could not be decoded.
    """

    clips: Num[Tensor, "batch 3 time height width"]
    labels: Int[Tensor, " batch"]
    sample_ids: Int[Tensor, " batch"]
    positions: Int[Tensor, " batch"]
    weights: Float[Tensor, " batch"]
    refused: tuple[tuple[int, str], ...]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)


def to_device(rows: Mapping[str, np.ndarray], device: torch.device) -> ClipBatch:
    """Move decoded rows to the device and normalize them; see :func:`pixels_to_device`."""
    return normalized(pixels_to_device(rows, device))


def pixels_to_device(rows: Mapping[str, np.ndarray], device: torch.device) -> ClipBatch:
    """Move decoded rows to the device as uint8.

    Clips that could not be decoded are left out, as are rows without a sample; if that leaves none,
    the batch keeps one row of weight 0.

    Args:
        rows: ``clip`` uint8 (batch, time, height, width, 3), ``label``, ``sample_id``,
            ``position``, and ``reason``, empty where the clip was decoded.
        device: Where to.
    """
    reasons = [str(reason) for reason in rows["reason"]]
    kept = np.array([index for index, reason in enumerate(reasons) if not reason] or [0])
    refused = tuple(
        (int(sample_id), reason)
        for sample_id, reason in zip(rows["sample_id"], reasons, strict=True)
        if reason and sample_id != NO_SAMPLE
    )
    weights = torch.tensor([0.0 if reasons[index] else 1.0 for index in kept])
    clips = torch.from_numpy(rows["clip"][kept]).to(device, non_blocking=True)
    ids, labels, positions = (
        torch.from_numpy(rows[name][kept].astype(np.int64)).to(device)
        for name in ("sample_id", "label", "position")
    )
    clips = rearrange(clips, "b t h w c -> b c t h w")
    return ClipBatch(clips, labels, ids, positions, weights.to(device), refused)


def normalized(batch: ClipBatch) -> ClipBatch:
    """Scale uint8 clips by ImageNet's mean and standard deviation."""
    clips = normalize(rearrange(batch.clips, "b c t h w -> b t h w c"))
    return replace(batch, clips=rearrange(clips, "b t h w c -> b c t h w").contiguous())


def normalize(frames: Tensor) -> Tensor:
    """Scale uint8 frames (..., 3) by ImageNet's mean and standard deviation."""
    mean = torch.tensor(IMAGENET_MEAN, device=frames.device) * 255.0
    std = torch.tensor(IMAGENET_STD, device=frames.device) * 255.0
    return (frames.float() - mean) / std


def select(batch: ClipBatch, kept: Tensor) -> ClipBatch:
    """Keep the samples where ``kept`` is true; if none is, keep the first with weight 0."""
    weights = batch.weights * kept.to(batch.weights)
    index = (
        kept.nonzero().squeeze(1)
        if bool(kept.any())
        else torch.zeros(1, dtype=torch.int64, device=kept.device)
    )
    return ClipBatch(
        batch.clips[index],
        batch.labels[index],
        batch.sample_ids[index],
        batch.positions[index],
        weights[index],
        batch.refused,
    )
