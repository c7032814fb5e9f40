"""Damaged videos are accounted for to the last of them, by an indexing and by a stream."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dsts_ray.data.clip import ViewSpec
from dsts_ray.data.decoder_pool import DecoderPool
from dsts_ray.data.index import index_dataset
from dsts_ray.data.manifest import Manifest
from dsts_ray.data.pipeline import batches, test_stream
from tests.support.mutate import mutate, write_originals

NUM_VIDEOS = 512
BLOCK_SIZE = 16


@pytest.mark.exhaustive
@pytest.mark.usefixtures("ray_cluster")
def test_every_damaged_video_is_indexed_or_refused_and_delivered_or_refused(tmp_path: Path) -> None:
    (tmp_path / "originals").mkdir()
    write_originals(tmp_path / "originals")
    originals = sorted((tmp_path / "originals").iterdir())
    contents = [path.read_bytes() for path in originals]
    places = [number % len(originals) for number in range(NUM_VIDEOS)]
    videos = tmp_path / "videos"
    videos.mkdir()
    names = [f"{number}{originals[place].suffix}" for number, place in enumerate(places)]
    for name, place in zip(names, places, strict=True):
        (videos / name).write_bytes(contents[place])
    listing = videos / "list.csv"
    listing.write_text("".join(f"{name},a,test\n" for name in names))

    def index(out: Path) -> tuple[list[str], list[str]]:
        index_dataset(format="csv", root=listing, out=out)
        refused = pq.read_table(out.with_name(f"{out.stem}.refused.parquet"))
        kept = Manifest.read(out).table["video_id"].to_pylist()
        return kept, refused["video_id"].to_pylist()

    before = tmp_path / "before.parquet"
    assert index(before) == (names, [])
    for number, (name, place) in enumerate(zip(names, places, strict=True)):
        (videos / name).write_bytes(mutate(contents[place], number, contents)[1])
    kept, refused = index(tmp_path / "after.parquet")
    assert sorted(kept + refused) == sorted(names)
    assert min(len(kept), len(refused)) > NUM_VIDEOS // 10

    stream = test_stream(
        manifest=str(before),
        split="test",
        spec=ViewSpec(num_frames=4, short_side=48, crop_size=32),
        block_size=BLOCK_SIZE,
        num_workers=1,
        decoders=DecoderPool(num_decoders=2, cpus=0.5, timeout_s=60),
    )
    seen = list(batches(stream, batch_size=BLOCK_SIZE, prefetch_blocks=1))
    ids = [number for block in seen for number in block["sample_id"].tolist()]
    assert sorted(ids) == list(range(NUM_VIDEOS))
    bad = {names[number] for block in seen for number in block["sample_id"][block["reason"] != ""]}
    assert NUM_VIDEOS // 10 < len(bad) < NUM_VIDEOS
