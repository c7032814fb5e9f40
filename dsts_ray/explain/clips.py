"""Which clips a page shows, and their key frames."""

import io
import textwrap
from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from dsts_ray.explain.drawing import Clip
from dsts_ray.metrics.recognition import predicted_classes
from dsts_ray.train.predictions import SavedPredictions

CLIPS_OF_A_NEURON = 8
CLIPS_OF_A_CLASS = 2
"""Recognized, and as many confused ones."""
KEY_FRAMES = 6
STRIP_HEIGHT = 64


def choose_clips(saved: SavedPredictions, paths: Int[Tensor, "videos layers"]) -> list[Clip]:
    """Choose clips of every neuron and class, the same ones each time.

    Of a neuron those of the classes it sees most often, one a class in turn; of a class recognized
    and confused ones. Refused videos have no frames to show.
    """
    rows = saved.predictions
    labels, predicted = rows.labels.tolist(), predicted_classes(rows.probabilities).tolist()
    decoded = [row for row in range(len(labels)) if row not in rows.refused]
    chosen = set[int]()
    for layer in range(paths.shape[1]):
        for neuron in range(saved.num_neurons):
            own = [row for row in decoded if paths[row, layer] == neuron]
            chosen.update(_in_turn(own, labels)[:CLIPS_OF_A_NEURON])
    for index in range(len(saved.classes)):
        own = [row for row in decoded if labels[row] == index]
        chosen.update([row for row in own if predicted[row] == index][:CLIPS_OF_A_CLASS])
        chosen.update([row for row in own if predicted[row] != index][:CLIPS_OF_A_CLASS])
    return [
        Clip(
            row=row,
            video_id=saved.video_ids[row],
            label=labels[row],
            predicted=predicted[row],
            probability=float(rows.probabilities[row, predicted[row]]),
            path=paths[row].tolist(),
        )
        for row in sorted(chosen)
    ]


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


def _in_turn(rows: Iterable[int], labels: list[int]) -> list[int]:
    """One row of each class, the most frequent class first, then a second one, and so on."""
    rows = list(rows)
    frequency = Counter(labels[row] for row in rows)
    turns = Counter[int]()
    keyed = []
    for row in rows:
        label = labels[row]
        keyed.append((turns[label], -frequency[label], label, row))
        turns[label] += 1
    return [row for *_, row in sorted(keyed)]
