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
    assert len(chosen.clips) == CLIPS_OF_A_NEURON
    assert sorted(Counter(clip.label for clip in chosen.clips).values()) == [2, 3, 3]
    (of_neurons,) = chosen.of_neurons
    assert [chosen.clips[place].row for place in of_neurons[0]] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert of_neurons[1:] == [[], []]
    assert chosen == choose_clips(saved, paths)


def test_every_confused_pair_has_clips() -> None:
    """Of ten videos of a class seven are taken for the second, three for the third."""
    taken = torch.tensor([1] * 7 + [2] * 3)
    saved = replace(
        predictions(PREDICTED),
        video_ids=tuple(map(str, range(10))),
        predictions=Predictions(
            labels=torch.zeros(10, dtype=torch.int64),
            probabilities=torch.nn.functional.one_hot(taken, 3).float(),
            views_seen=torch.ones(10),
            chosen=torch.zeros(10, 1, 0, dtype=torch.int64),
            refused={},
        ),
    )
    chosen = choose_clips(saved, torch.zeros(10, 0, dtype=torch.int64))
    assert [clip.row for clip in chosen.clips] == [0, 1, 7, 8]
    assert chosen.of_neurons == []


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
