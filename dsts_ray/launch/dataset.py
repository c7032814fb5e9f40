"""The manifest a run trains on; makes the demo data set when asked to."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from dsts_ray.config.schema import Config, DemoConfig
from dsts_ray.data.demo.diving48 import write_diving48
from dsts_ray.data.demo.ssv2 import write_ssv2
from dsts_ray.data.index import index_dataset
from dsts_ray.data.manifest import UNKNOWN_LABEL, Manifest
from dsts_ray.errors import ConfigError, DataError
from dsts_ray.train.checkpoint import read_json

DEMO = "demo"
_MANIFEST = "manifest.parquet"


def manifest_path(config: Config, storage: Path) -> Path:
    """Where the manifest is, or will be once the demo data set is made."""
    if config.data.manifest != DEMO:
        return Path(config.data.manifest).expanduser().resolve()
    demo = config.data.demo
    digest = hashlib.sha256(
        json.dumps(dataclasses.asdict(demo), sort_keys=True).encode()
    ).hexdigest()[:8]
    return storage / "data" / f"{demo.layout}-{digest}" / _MANIFEST


def locate_manifest(config: Config, storage: Path) -> Path:
    """Return the manifest's path.

    ``data.manifest=demo`` renders and indexes the demo data set once.

    Raises:
        DataError: The demo data set cannot be written.
    """
    path = manifest_path(config, storage)
    if config.data.manifest == DEMO and not path.exists():
        root, demo = path.parent, config.data.demo
        shutil.rmtree(root, ignore_errors=True)
        _write_demo(demo, root)
        index_dataset(format=demo.layout, root=root, out=path)
    return path


def describe(manifest: Manifest) -> dict[str, Any]:
    """What tells a data set from another, for a run's folder."""
    splits = manifest.table["split"].value_counts().to_pylist()
    return {
        "num_classes": len(manifest.classes),
        "num_videos": {split["values"]: split["counts"] for split in splits},
        "digest": manifest.digest,
    }


def check_same_data(manifest: Manifest, record: Path) -> None:
    """Refuse to go on with a run that has seen other data.

    Args:
        manifest: As it is now.
        record: File with what ``describe`` said when the run began; none if it begins now.

    Raises:
        ConfigError: Says what changed.
    """
    if not record.exists():
        return
    before, now = read_json(record), describe(manifest)
    changed = [
        f"{key}: {before[key]} before, {now[key]} now" for key in now if before[key] != now[key]
    ]
    if changed:
        raise ConfigError(
            f"{record.parent} holds a run on other videos, labels or splits, or another order of "
            f"them ({'; '.join(changed)}); choose another name=..., or the manifest as it was"
        )


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


def check_held_out(config: Config, num_clips: int) -> None:
    """Refuse UDL where every clip of D_val would be one of D_train.

    Raises:
        ConfigError: A batch takes all clips, so that the next one has no others.
    """
    uses_udl = config.dsts.enabled and config.udl.enabled
    if uses_udl and num_clips <= config.train.batch_size:
        raise ConfigError(
            f"train.batch_size = {config.train.batch_size} with udl.enabled takes all of the "
            f"{num_clips} training clips and leaves none to hold out for Eq. 10: use a "
            f"train.batch_size of at most {num_clips - 1}, more videos, or udl.enabled=false"
        )


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
