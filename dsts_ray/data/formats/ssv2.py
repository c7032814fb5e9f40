"""Something-Something v2 as released, in the file naming of 20BN and in that of Qualcomm."""

import csv
from pathlib import Path
from typing import Any

from dsts_ray.data.formats.annotations import Annotations, VideoRow, read_items, read_json
from dsts_ray.data.manifest import UNKNOWN_LABEL
from dsts_ray.errors import DataError

_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def read_annotations(root: Path) -> Annotations:
    """Read the labels and the three lists; videos lie in ``20bn-something-something-v2/``.

    20BN names the files ``something-something-v2-{labels,train,validation,test}.json``, Qualcomm
    ``labels/{labels,train,validation,test}.json`` with ``labels/test-answers.csv``. A class is
    the item's template without its brackets, never the free caption under "label". Test videos
    without answers get label -1.

    Raises:
        DataError: A file is missing or malformed, or a template is outside the vocabulary.
    """
    qualcomm = (root / "labels" / "labels.json").is_file()
    prefix = "labels/" if qualcomm else "something-something-v2-"
    labels_path = root / f"{prefix}labels.json"
    vocabulary = _read_vocabulary(labels_path)
    answers = _read_answers(root / "labels" / "test-answers.csv") if qualcomm else {}
    rows = []
    for name, split in _SPLITS.items():
        path = root / f"{prefix}{name}.json"
        for item in read_items(path, ("id",) if name == "test" else ("id", "template")):
            class_name = answers.get(str(item["id"])) if name == "test" else _class_of(item)
            if class_name is not None and class_name not in vocabulary:
                raise DataError(
                    f"{path}: class {class_name!r} of video {item['id']} is outside the "
                    f"vocabulary, allowed are the {len(vocabulary)} of {labels_path}"
                )
            label = UNKNOWN_LABEL if class_name is None else vocabulary[class_name]
            video_id = str(item["id"])
            file = root / "20bn-something-something-v2" / f"{video_id}.webm"
            rows.append(VideoRow(video_id, split, label, group=video_id, path=file))
    return Annotations(rows, tuple(sorted(vocabulary, key=vocabulary.__getitem__)))


def _class_of(item: dict[str, Any]) -> str:
    return item["template"].replace("[", "").replace("]", "")


def _read_vocabulary(path: Path) -> dict[str, int]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} must map class names to indices")
    if {str(index) for index in content.values()} != {str(i) for i in range(len(content))}:
        raise DataError(f"{path} must number its {len(content)} classes from 0, each once")
    return {name: int(index) for name, index in content.items()}


def _read_answers(path: Path) -> dict[str, str]:
    """Read the classes of the test videos, where the release has them."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.reader(file, delimiter=";") if line]
    for number, line in enumerate(lines, start=1):
        if len(line) != 2:
            raise DataError(f"{path}: line {number} must be 'id;class', is {';'.join(line)!r}")
    return dict(lines)
