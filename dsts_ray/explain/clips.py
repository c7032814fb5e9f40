"""Which clips a page shows, and their key frames."""

import io
import textwrap
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from dsts_ray.explain.drawing import Clip
from dsts_ray.metrics.recognition import predicted_classes
from dsts_ray.train.predictions import SavedPredictions

CLIPS_OF_A_NEURON = 8
CLIPS_OF_A_PAIR = 2
"""Of each class recognized, and of each pair of classes confused."""
MOST_PAIRS = 200
"""Confused pairs with clips, the most frequent ones."""
KEY_FRAMES = 6
STRIP_HEIGHT = 64


class ChosenClips(NamedTuple):
    """Clips of a page.

    Attributes:
        clips: By row.
        of_neurons: Places in ``clips`` of those that stand for a neuron, by layer and neuron.
    """

    clips: list[Clip]
    of_neurons: list[list[list[int]]]


def choose_clips(saved: SavedPredictions, paths: Int[Tensor, "videos layers"]) -> ChosenClips:
    """Choose clips of every neuron, class and confused pair, the same ones each time.

    Of a neuron those of the classes it sees most often, one a class in turn. Refused videos have no
    frames to show.
    """
    rows = saved.predictions
    labels, predicted = rows.labels.tolist(), predicted_classes(rows.probabilities).tolist()
    decoded = [row for row in range(len(labels)) if row not in rows.refused]
    of_neurons = [
        [
            _in_turn([row for row in decoded if paths[row, layer] == neuron], labels)
            for neuron in range(saved.num_neurons)
        ]
        for layer in range(paths.shape[1])
    ]
    of_pairs = _of_pairs(decoded, labels, predicted)
    rows_shown = sorted({*of_pairs, *(row for layer in of_neurons for own in layer for row in own)})
    place = {row: place for place, row in enumerate(rows_shown)}
    clips = [
        Clip(
            row=row,
            video_id=saved.video_ids[row],
            label=labels[row],
            predicted=predicted[row],
            probability=float(rows.probabilities[row, predicted[row]]),
            path=paths[row].tolist(),
        )
        for row in rows_shown
    ]
    return ChosenClips(
        clips, [[[place[row] for row in own] for own in layer] for layer in of_neurons]
    )


def key_frames(frames: UInt8[np.ndarray, "time height width 3"]) -> bytes:
    """Frames of a clip side by side, evenly spread in time, as a JPEG file."""
    shown = torch.linspace(0, len(frames) - 1, min(KEY_FRAMES, len(frames))).round().int().tolist()
    strip = Image.fromarray(np.concatenate([frames[place] for place in shown], axis=1))
    width = round(strip.width * STRIP_HEIGHT / strip.height)
    return _jpeg(strip.resize((width, STRIP_HEIGHT)))


def blank_strip(reason: str) -> bytes:
    """Say in place of key frames why there are none, as a JPEG file."""
    strip = Image.new("RGB", (KEY_FRAMES * STRIP_HEIGHT, STRIP_HEIGHT), "dimgray")
    lines = textwrap.wrap(reason, 60, max_lines=4, placeholder=" ...")
    ImageDraw.Draw(strip).multiline_text((4, 4), "\n".join(lines), fill="white")
    return _jpeg(strip)


def _jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()


def _of_pairs(rows: list[int], labels: list[int], predicted: list[int]) -> list[int]:
    """The first rows of each class that is recognized, and of the most frequent confusions."""
    by_pair = defaultdict[tuple[int, int], list[int]](list)
    for row in rows:
        by_pair[labels[row], predicted[row]].append(row)
    right = [own for (true, taken), own in by_pair.items() if true == taken]
    wrong = [own for (true, taken), own in by_pair.items() if true != taken]
    wrong = sorted(wrong, key=len, reverse=True)[:MOST_PAIRS]
    return [row for own in (*right, *wrong) for row in own[:CLIPS_OF_A_PAIR]]


def _in_turn(rows: list[int], labels: list[int]) -> list[int]:
    """One row of each class, the most frequent class first, then a second one, and so on."""
    frequency = Counter(labels[row] for row in rows)
    turns = Counter[int]()
    keyed = []
    for row in rows:
        label = labels[row]
        keyed.append((turns[label], -frequency[label], label, row))
        turns[label] += 1
    return [row for *_, row in sorted(keyed)][:CLIPS_OF_A_NEURON]
