"""Choice of clips among many, and their key frames."""

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from dsts_ray.explain.clips import (
    CLIPS_OF_A_NEURON,
    STRIP_HEIGHT,
    blank_strip,
    choose_clips,
    key_frames,
)
from dsts_ray.train.evaluate import Predictions
from tests.support.explanation import PREDICTED, predictions

NUM_VIDEOS = 300


def test_of_a_neuron_one_clip_a_class_in_turn() -> None:
    labels = torch.arange(NUM_VIDEOS) % 3
    paths = torch.zeros(NUM_VIDEOS, 1, dtype=torch.int64)
    saved = replace(
        predictions(PREDICTED),
        video_ids=tuple(map(str, range(NUM_VIDEOS))),
        predictions=Predictions(
            labels=labels,
            probabilities=torch.nn.functional.one_hot(labels, 3).float(),
            views_seen=torch.ones(NUM_VIDEOS),
            chosen=paths.unsqueeze(1),
            refused={},
        ),
    )
    chosen = choose_clips(saved, paths)
    assert len(chosen) == CLIPS_OF_A_NEURON
    assert sorted(Counter(clip.label for clip in chosen).values()) == [2, 3, 3]
    assert chosen == choose_clips(saved, paths)


def test_key_frames_run_from_the_first_to_the_last() -> None:
    frames = np.zeros((16, 128, 96, 3), np.uint8)
    frames[0, ..., 0] = 255
    frames[-1, ..., 2] = 255
    strip = np.asarray(Image.open(io.BytesIO(key_frames(frames))))
    assert strip.shape == (STRIP_HEIGHT, 6 * 48, 3)
    assert strip[30, 10, 0] > 200
    assert strip[30, -10, 2] > 200
    assert strip[30, 144].max() < 60
    short = Image.open(io.BytesIO(key_frames(frames[:2])))
    assert short.size == (2 * 48, STRIP_HEIGHT)


def test_a_strip_without_frames_says_why() -> None:
    strips = [np.asarray(Image.open(io.BytesIO(blank_strip(why)))) for why in ("é→", "a " * 999)]
    assert {strip.shape for strip in strips} == {(STRIP_HEIGHT, 6 * STRIP_HEIGHT, 3)}
    few, many = (np.count_nonzero(strip > 200) for strip in strips)
    assert 0 < few < many
