from pathlib import Path

import pyarrow as pa

from dsts_ray.build import build_model, build_setup
from dsts_ray.config.load import config_to_yaml, load_config
from dsts_ray.data.index import index_dataset
from dsts_ray.data.manifest import SCHEMA, Manifest
from dsts_ray.data.shards import write_shard
from dsts_ray.launch.register import input_example, register_best
from dsts_ray.tracking.mlflow import open_run
from dsts_ray.train.checkpoint import TrainingState, save_training_state, save_weights
from dsts_ray.train.ledger import Ledger
from tests.support.jobs import TINY
from tests.support.store import new_store
from tests.support.videos import write_video


def write_manifest(folder: Path, names: str) -> Path:
    """A test split of videos."""
    for name in names:
        write_video(folder / f"{name}.mp4", width=64, height=64)
    (folder / "list.csv").write_text("".join(f"{name}.mp4,dive,test\n" for name in names))
    out = folder / "manifest.parquet"
    index_dataset(format="csv", root=folder / "list.csv", out=out, num_processes=1)
    return out


def test_the_input_example_is_the_first_video_that_can_be_read(tmp_path: Path) -> None:
    out = write_manifest(tmp_path, "abc")
    videos = [tmp_path / f"{name}.mp4" for name in "abc"]
    config = load_config(preset="demo")
    content = videos[2].read_bytes()
    videos[0].unlink()
    videos[1].write_bytes(b"")
    assert input_example(config, Manifest.read(out)) == content
    row = {**Manifest.read(out).table.to_pylist()[2], "path": None, "row": 0}
    row["shard"] = str(tmp_path / "shard.parquet")
    for _ in write_shard(tmp_path / "shard.parquet", packing="", video_ids="c", contents=[content]):
        videos[2].unlink()
    packed = Manifest(pa.Table.from_pylist([row], SCHEMA), ("dive",))
    assert input_example(config, packed) == content
    assert input_example(config, Manifest.read(out)) == b""


def test_what_a_run_registered_before_is_not_registered_again(tmp_path: Path) -> None:
    """As when it ended before its summary was written."""
    config = load_config(preset="demo", overrides=[*TINY, "data.val_split=test"])
    manifest = Manifest.read(write_manifest(tmp_path, "ab"))
    setup = build_setup(config, model="run", split="test", num_videos=2)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    model = build_model(config, len(manifest.classes))
    save_weights(checkpoint, model, classes=manifest.classes, config=config_to_yaml(config))
    save_training_state(checkpoint, {}, TrainingState(4, {"val/top1": 0.5}, (), Ledger()))
    uri = new_store(tmp_path)
    run_id = open_run(
        uri=uri, experiment="e", run_name="run", artifact_root=None, params={}, tags={}
    )
    entries = [register_best(config, uri, run_id, manifest, checkpoint, setup) for _ in range(2)]
    assert entries[0] == entries[1]
    assert (entries[0]["registered_version"], entries[0]["is_champion"]) == ("1", True)
