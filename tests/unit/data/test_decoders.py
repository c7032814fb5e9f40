"""Decoding processes live long: their memory must not grow with the clips they have decoded."""

import gc
from pathlib import Path

import numpy as np
import psutil
import pytest

from dsts_ray.data.clip import ClipSpec
from dsts_ray.data.decoders import TrainingDecoder
from dsts_ray.data.index import index_dataset
from dsts_ray.data.manifest import Manifest
from dsts_ray.data.order import TrainingOrder
from dsts_ray.data.watch import Watch
from tests.support.videos import write_video

NUM_CLIPS, WARM_UP, BATCH_SIZE = 20_000, 2_000, 20
NAMES = [f"clip{index}.{suffix}" for index in range(5) for suffix in ("mp4", "webm", "mkv", "avi")]


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingDecoder:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in NAMES:
        codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
        write_video(tmp_path / name, codec=codec, width=96, height=64, num_frames=24)
    (tmp_path / "broken.mp4").write_bytes((tmp_path / NAMES[0]).read_bytes())
    (tmp_path / "list.csv").write_text(
        "".join(f"{name},a,train\n" for name in [*NAMES, "broken.mp4"])
    )
    out = tmp_path / "manifest.parquet"
    index_dataset(format="csv", root=tmp_path / "list.csv", out=out, num_processes=1)
    (tmp_path / "broken.mp4").write_bytes(b"broken")
    table = Manifest.read(out).table
    return TrainingDecoder(
        table,
        Watch("memory", 60.0),
        spec=ClipSpec(num_frames=8, short_side=64, crop_size=64),
        order=TrainingOrder(num_clips=len(table), batch_size=BATCH_SIZE),
        first_batch=0,
        num_batches=NUM_CLIPS // BATCH_SIZE,
        batches_per_block=1,
    )


def test_a_clip_that_does_not_decode_is_a_row_with_a_reason(decoder: TrainingDecoder) -> None:
    rows = [decoder(block) for block in range(3)]
    ids, reasons = (np.concatenate([row[name] for row in rows]) for name in ("sample_id", "reason"))
    broken = len(NAMES)
    assert set(ids[reasons != ""].tolist()) == {broken}
    assert {row["clip"].shape for row in rows} == {(BATCH_SIZE, 8, 64, 64, 3)}


@pytest.mark.perf
@pytest.mark.timeout(3600)
def test_memory_stays_flat_over_20_000_clips(decoder: TrainingDecoder) -> None:
    process, resident = psutil.Process(), {}
    for block in range(NUM_CLIPS // BATCH_SIZE):
        decoder(block)
        if (block + 1) * BATCH_SIZE % WARM_UP == 0:
            gc.collect()
            resident[(block + 1) * BATCH_SIZE] = process.memory_info().rss / 2**20
    print({clips: round(mebibytes) for clips, mebibytes in resident.items()})
    assert resident[NUM_CLIPS] < resident[WARM_UP] + 16
