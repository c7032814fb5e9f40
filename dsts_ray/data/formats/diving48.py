"""Diving48 V2 as released: two lists, a vocabulary, and a folder of mp4 files."""

from pathlib import Path

from dsts_ray.data.formats.annotations import Annotations, VideoRow, read_items, read_json
from dsts_ray.errors import DataError

_KEYS = ("vid_name", "label", "start_frame", "end_frame")


def read_annotations(root: Path) -> Annotations:
    """Read ``Diving48_V2_{train,test}.json`` and ``Diving48_vocab.json``; videos lie in ``rgb/``.

    A class name joins its four attributes: ``Back+15som+05Twis+FREE``. The group is the source
    video, ``vid_name`` up to its last underscore.

    Raises:
        DataError: A file is missing or malformed, or a label is outside the vocabulary.
    """
    vocabulary = read_json(root / "Diving48_vocab.json")
    if not (isinstance(vocabulary, list) and all(isinstance(item, list) for item in vocabulary)):
        raise DataError(f"{root / 'Diving48_vocab.json'} must hold a list of lists of attributes")
    classes = tuple("+".join(map(str, attributes)) for attributes in vocabulary)
    rows = []
    for split in ("train", "test"):
        path = root / f"Diving48_V2_{split}.json"
        for item in read_items(path, _KEYS):
            name, label = item["vid_name"], item["label"]
            if label not in range(len(classes)):
                raise DataError(
                    f"{path}: label {label!r} of {name!r} is outside the vocabulary, "
                    f"allowed are 0 to {len(classes) - 1}"
                )
            rows.append(
                VideoRow(
                    video_id=name,
                    split=split,
                    label=label,
                    group=name.rsplit("_", 1)[0],
                    path=root / "rgb" / f"{name}.mp4",
                    start_frame=item["start_frame"],
                    end_frame=item["end_frame"],
                )
            )
    return Annotations(rows, classes)
