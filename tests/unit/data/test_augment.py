from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dsts_ray.data.augment import Augmentation, check_flip_labels, erase, flip
from dsts_ray.data.batch import ClipBatch, normalized, select
from dsts_ray.errors import ConfigError

SSV2_PAIRS = ((86, 87), (93, 94), (166, 167))
EVERYTHING = Augmentation(
    flip_probability=0.5,
    flip_labels=((0, 1), (5, 6)),
    color_jitter=(0.5, 0.5, 0.5, 0.1),
    rand_augment_operations=4,
    rand_augment_magnitude=7,
    erase_probability=0.5,
    seed=1,
)


def batch_of(num: int, *, still: bool = False) -> ClipBatch:
    generator = torch.Generator().manual_seed(0)
    num_frames = 1 if still else 3
    shape = (num, 3, num_frames, 16, 20)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    numbers = torch.arange(num)
    clips = clips.expand(-1, -1, 3, -1, -1)
    return ClipBatch(clips, numbers % 8, numbers + 10, numbers, torch.ones(num), ())


def worker_of(batch: ClipBatch, rank: int) -> ClipBatch:
    return select(batch, torch.arange(len(batch)) % 2 == rank)


def changed_clips(before: ClipBatch, after: ClipBatch) -> Tensor:
    return (before.clips != after.clips).flatten(1).any(1)


AUGMENTATIONS = [
    Augmentation(flip_probability=0.5, flip_labels=((0, 1),)),
    Augmentation(color_jitter=(0.5, 0.5, 0.5, 0.1)),
    Augmentation(rand_augment_operations=4, rand_augment_magnitude=7),
    Augmentation(erase_probability=0.5),
    EVERYTHING,
]


@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=["flip", "jitter", "rand", "erase", "all"])
def test_all_frames_change_alike_and_two_workers_draw_what_one_draws(augment: Augmentation) -> None:
    still = batch_of(12, still=True)
    augmented = augment(still, step=5)
    assert augmented.clips.dtype == torch.float32
    assert changed_clips(normalized(still), augmented).sum() > 2
    frames = augmented.clips.unbind(2)
    assert all(torch.equal(one, other) for one, other in pairwise(frames))
    batch = batch_of(12)
    joined = augment(batch, step=5)
    for rank in range(2):
        own, share = augment(worker_of(batch, rank), step=5), worker_of(joined, rank)
        assert torch.equal(own.clips, share.clips)
        assert torch.equal(own.labels, share.labels)
    assert not torch.equal(augment(batch, step=6).clips, joined.clips)
    assert not torch.equal(replace(augment, seed=2)(batch, step=5).clips, joined.clips)


def test_without_augmentation_a_batch_is_normalized() -> None:
    batch = batch_of(3)
    assert torch.equal(Augmentation()(batch, step=0).clips, normalized(batch).clips)


def test_about_the_given_share_is_mirrored() -> None:
    batch = batch_of(64)
    flipped = flip(batch, probability=0.5, seed=0, step=0)
    changed = changed_clips(batch, flipped)
    assert 16 < int(changed.sum()) < 48
    assert torch.equal(flipped.clips[changed], batch.clips[changed].flip(-1))
    assert torch.equal(flipped.labels, batch.labels)


@pytest.mark.parametrize(("probability", "mirrored"), [(0.0, False), (1.0, True)])
def test_flip_probabilities_at_the_ends(probability: float, mirrored: bool) -> None:
    batch = batch_of(8)
    expected = batch.clips.flip(-1) if mirrored else batch.clips
    assert torch.equal(flip(batch, probability=probability, seed=0, step=0).clips, expected)


def test_a_mirrored_clip_changes_its_label_and_no_other_does() -> None:
    labels = torch.tensor([86, 87, 93, 94, 166, 167, 0, 173] * 8)
    batch = replace(batch_of(64), labels=labels)
    flipped = flip(batch, probability=0.5, labels=SSV2_PAIRS, seed=0, step=0)
    mirrored = changed_clips(batch, flipped)
    partner = {86: 87, 87: 86, 93: 94, 94: 93, 166: 167, 167: 166}
    expected = [
        partner.get(label, label) if turned else label
        for label, turned in zip(labels.tolist(), mirrored.tolist(), strict=True)
    ]
    assert flipped.labels.tolist() == expected
    assert set(labels[mirrored].tolist()) == set(labels.tolist())


def test_pairs_must_be_classes_of_the_data_set() -> None:
    check_flip_labels(SSV2_PAIRS, 174)
    check_flip_labels((), 2)
    with pytest.raises(ConfigError, match=r"class 167, the data set has 16 classes, 0 to 15"):
        check_flip_labels(SSV2_PAIRS, 16)


def test_an_erased_box_is_one_rectangle_of_zeros_in_every_frame() -> None:
    batch = replace(batch_of(200), clips=torch.ones(200, 3, 2, 40, 60))
    erased = erase(batch, probability=0.25, seed=0, step=0)
    changed = changed_clips(batch, erased)
    assert 30 < int(changed.sum()) < 70
    shares = []
    for clip in erased.clips[changed]:
        assert torch.equal(clip, clip[:1, :1].expand_as(clip))
        box = (clip[0, 0] == 0).nonzero()
        height, width = (box.amax(0) - box.amin(0) + 1).tolist()
        assert height * width == len(box)
        assert 0.25 < width / height < 4.0
        shares.append(len(box) / (40 * 60))
    assert min(shares) > 0.015
    assert 0.2 < max(shares) < 0.36
