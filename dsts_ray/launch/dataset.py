"""The manifest a run trains on; makes the demo data set when asked to."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pyarrow.compute as pc

from dsts_ray.config.schema import Config, DemoConfig
from dsts_ray.data.demo.diving48 import write_diving48
from dsts_ray.data.demo.ssv2 import write_ssv2
from dsts_ray.data.index import index_dataset
from dsts_ray.data.manifest import UNKNOWN_LABEL, Manifest
from dsts_ray.errors import DataError

DEMO = "demo"
_MANIFEST = "manifest.parquet"


def locate_manifest(config: Config, storage: Path) -> Path:
    """Return the manifest's path.

    ``data.manifest=demo`` renders and indexes the demo data set once.

    Raises:
        DataError: The demo data set cannot be written.
    """
    if config.data.manifest != DEMO:
        return Path(config.data.manifest).expanduser().resolve()
    demo = config.data.demo
    digest = hashlib.sha256(
        json.dumps(dataclasses.asdict(demo), sort_keys=True).encode()
    ).hexdigest()[:8]
    root = storage / "data" / f"{demo.layout}-{digest}"
    if not (root / _MANIFEST).exists():
        shutil.rmtree(root, ignore_errors=True)
        _write_demo(demo, root)
        index_dataset(format=demo.layout, root=root, out=root / _MANIFEST)
    return root / _MANIFEST


def labelled_split(manifest: Manifest, split: str) -> Manifest:
    """Select a split that a model can be trained or measured on.

    Raises:
        DataError: The split has no video, or one whose class is unknown.
    """
    keys = "choose others with data.train_split and data.val_split, or --split"
    try:
        videos = manifest.split(split)
    except DataError as error:
        raise DataError(f"{error}; {keys}") from error
    unknown = videos.table.filter(pc.field("label") == UNKNOWN_LABEL)
    if len(unknown):
        raise DataError(
            f"{len(unknown)} of the {len(videos)} videos in split {split!r} have no label, the "
            f"first is {unknown['video_id'][0].as_py()!r}; {keys}"
        )
    return videos


def _write_demo(demo: DemoConfig, root: Path) -> None:
    if demo.layout == "diving48":
        write_diving48(
            root,
            num_classes=demo.num_classes,
            num_train_clips=demo.num_train_clips,
            num_test_clips=demo.num_test_clips,
            size=demo.size,
            min_frames=demo.min_frames,
            max_frames=demo.max_frames,
            seed=demo.seed,
        )
        return
    write_ssv2(
        root,
        num_classes=demo.num_classes,
        num_train_clips=demo.num_train_clips,
        num_validation_clips=demo.num_test_clips,
        num_test_clips=demo.num_test_clips,
        size=demo.size,
        min_frames=demo.min_frames,
        max_frames=demo.max_frames,
        seed=demo.seed,
    )
