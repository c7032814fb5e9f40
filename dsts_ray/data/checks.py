"""What is wrong with a data set: what refuses a video, and what is only worth a warning.

A check that refuses leaves a row out of the manifest, and lists it with its reason:

=================== ===============================================================================
``label``           the label is outside the vocabulary
``listed again``    the same line once more; the first one counts
``contradiction``   one id with several labels, files or parts: all its rows, as none can be trusted
``in two splits``   one id in several splits: it stays in the last of train, val, test, so that no
                    model is trained on a video that it is measured on
``no file``         there is no file (``survey.py``)
``unreadable``      the file does not decode to two frames or more (``survey.py``)
``part``            the annotated part holds less than two of the frames that decode (``index.py``)
``packing``         the file could not be read, or encoded anew, when it was packed (``packing.py``)
=================== ===============================================================================

A check that warns leaves the videos in, because a data set may be meant that way:

=================== ===============================================================================
``same file``       one file, by device and inode, under several ids, in one split or in several
``source video``    one group with videos in several splits
``empty class``     a class without any video, as class 30 of Diving48 V2
``not annotated``   a file in the release's folder of videos that no list names
=================== ===============================================================================
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dsts_ray.data.formats.splits import SPLITS

REFUSED_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("video_id", "path", "reason")]
)
"""What every list of refused videos has."""

_CHECK_FIELD = pa.field("check", pa.string(), nullable=False)

_NUM_EXAMPLES = 5


class Refusal(NamedTuple):
    """Why a video is left out: a check of this file, and the reason in words."""

    check: str
    reason: str


class Finding(NamedTuple):
    """What a check found in the videos that stay: a warning.

    Attributes:
        check: One of those above.
        number: How many files, groups or classes.
        text: What that means.
        examples: The first few.
    """

    check: str
    number: int
    text: str
    examples: tuple[str, ...]

    @property
    def omitted(self) -> int:
        """How many are no example."""
        return self.number - len(self.examples)


def refused_table(table: pa.Table, refusals: Mapping[int, Refusal]) -> pa.Table:
    """List refused videos in the order of the table: ``REFUSED_SCHEMA`` and the check.

    Args:
        table: With the columns video_id and path.
        refusals: By row.
    """
    rows = sorted(refusals)
    listed = table.select(["video_id", "path"]).take(pa.array(rows, pa.int64()))
    checks, reasons = [pa.array([refusals[row][i] for row in rows], pa.string()) for i in range(2)]
    schema = REFUSED_SCHEMA.append(_CHECK_FIELD)
    return pa.table([*listed.columns, reasons, checks], schema=schema)


def check_annotations(table: pa.Table) -> dict[int, Refusal]:
    """Find rows that the annotations alone tell to be unusable.

    Args:
        table: Columns of ``annotations.ANNOTATION_SCHEMA``.

    Returns:
        Refusals by row.
    """
    refusals = {
        row: Refusal("label", reason)
        for row, reason in enumerate(table["fault"].to_pylist())
        if reason is not None
    }
    for rows in _repeated(table["video_id"]):
        refusals |= _check_repeated(rows, table.take(rows).drop_columns(["fault"]).to_pylist())
    return refusals


def _repeated(ids: pa.ChunkedArray) -> Collection[list[int]]:
    """Rows of every id that has several."""
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    several = np.flatnonzero(np.bincount(codes)[codes] > 1)
    rows: defaultdict[int, list[int]] = defaultdict(list)
    for row, code in zip(several.tolist(), codes[several].tolist(), strict=True):
        rows[code].append(row)
    return rows.values()


def _check_repeated(rows: Sequence[int], listed: Sequence[dict[str, str]]) -> dict[int, Refusal]:
    splits = [content.pop("split") for content in listed]
    if any(content != listed[0] for content in listed):
        reason = f"listed {len(rows)} times with different labels, files or parts"
        return {row: Refusal("contradiction", reason) for row in rows}
    refusals: dict[int, Refusal] = {}
    first: dict[str, int] = {}
    for row, split in zip(rows, splits, strict=True):
        if first.setdefault(split, row) != row:
            refusals[row] = Refusal("listed again", f"split {split!r} lists it more than once")
    stays = max(first, key=SPLITS.index)
    for split in first.keys() - {stays}:
        refusals[first[split]] = Refusal("in two splits", f"split {stays!r} lists it too")
    return refusals


def check_videos(
    table: pa.Table, files: np.ndarray, classes: Sequence[str], not_annotated: Collection[str]
) -> list[Finding]:
    """Find what is worth a warning in the videos that stay.

    Args:
        table: These videos, with the columns video_id, split, label and group.
        files: Number of each video's file, int64 [videos]; equal where the files are one.
        classes: Class names.
        not_annotated: Files that no list names.
    """
    ids, splits = table["video_id"], table["split"]
    _, first, counts = np.unique(files, return_index=True, return_counts=True)
    several = np.sort(first[counts > 1])
    numbers = pa.array(files)
    across = _in_several_splits(numbers, splits)
    groups = _in_several_splits(table["group"], splits)
    present = set(table["label"].unique().to_pylist())
    empty = [f"{label} {name}" for label, name in enumerate(classes) if label not in present]
    found = (
        _finding(
            "same file",
            ids.take(several[:_NUM_EXAMPLES]).to_pylist(),
            f"files under several ids, {len(across)} of them in several splits",
            len(several),
        ),
        _finding("source video", groups.to_pylist(), "source videos in several splits"),
        _finding("empty class", empty, "classes without a video"),
        _finding("not annotated", sorted(not_annotated), "files that no list names"),
    )
    return [finding for finding in found if finding.number]


def _in_several_splits(keys: pa.Array | pa.ChunkedArray, splits: pa.ChunkedArray) -> pa.Array:
    """Keys that come in more than one split."""
    pairs = pa.table({"key": keys, "split": splits}).group_by(["key", "split"]).aggregate([])
    keys, counts = pairs["key"].value_counts().flatten()
    return keys.filter(pa.array(counts.to_numpy() > 1)).sort()


def _finding(check: str, values: Sequence[str], text: str, count: int | None = None) -> Finding:
    return Finding(
        check, len(values) if count is None else count, text, tuple(values[:_NUM_EXAMPLES])
    )
