"""What a prediction says on the console."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dsts_ray.data.source import video_name
from dsts_ray.launch.prediction_files import PREDICTIONS, REFUSED, Counts
from dsts_ray.tracking.base import Prediction

_NUM_SHOWN = 10


def print_prediction(row: Mapping[str, Any], prediction: Prediction, console: Console) -> None:
    """Print the classes of a video, or why there are none."""
    name = video_name(row)
    if prediction.error:
        reason = prediction.error.removeprefix(f"{name}: ")
        console.print(Text(f"{name}: {reason}"), style="red", soft_wrap=True)
        return
    table = Table(show_header=False)
    for label, probability in zip(prediction.classes, prediction.probabilities, strict=True):
        table.add_row(Text(label), f"{probability:.4f}")
    console.print(name, soft_wrap=True, markup=False, highlight=False)
    console.print(table)
    neurons = [f"layer {layer}: {neuron}" for layer, neuron in enumerate(prediction.neurons)]
    if neurons:
        console.print(f"active neurons: {', '.join(neurons)}", soft_wrap=True, highlight=False)


def print_counts(counts: Counts, out: Path, console: Console) -> None:
    """Print how many videos were predicted and refused, and the first of these."""

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)

    say(
        f"{counts.num_videos} videos: {counts.num_predicted} predicted "
        f"({counts.num_windows} windows), {counts.num_refused} refused"
    )
    rows = pq.read_table(out / REFUSED).slice(0, _NUM_SHOWN).to_pylist()
    for row in rows:
        within = "" if row["start_frame"] is None else f" frames {row['start_frame']} to "
        within += "" if row["start_frame"] is None else f"{row['end_frame']}"
        say(f"refused {row['path']}{within}: {row['reason'].removeprefix(row['path'] + ': ')}")
    if counts.num_refused_windows > len(rows):
        say(f"and {counts.num_refused_windows - len(rows)} more, listed in {out / REFUSED}")
    say(f"the predictions lie in {out / PREDICTIONS}")
