"""The streams on real Ray Data: what arrives, where, and in which order."""

import re
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray._private.internal_api import memory_summary
from ray.data import Dataset

from dsts_ray.data.clip import ClipSpec, ViewSpec
from dsts_ray.data.decoder_pool import DecoderPool
from dsts_ray.data.decoders import Rows
from dsts_ray.data.find import find_videos
from dsts_ray.data.index import index_dataset
from dsts_ray.data.order import NO_SAMPLE, TrainingOrder
from dsts_ray.data.pipeline import (
    batches,
    test_stream,
    training_stream,
    window_stream,
)
from dsts_ray.data.pipeline import blocks as all_blocks
from dsts_ray.data.windows import SlidingWindows
from tests.support.lethal import LethalSpec, LethalViewSpec
from tests.support.videos import write_video

pytestmark = pytest.mark.usefixtures("ray_cluster")

NUM_CLIPS = 6
SPEC = ClipSpec(num_frames=2, short_side=36, crop_size=32, crop_scale=(0.5, 1.0))
VIEWS = ViewSpec(num_frames=2, short_side=36, crop_size=32, num_crops=3)
ORDER = TrainingOrder(num_clips=NUM_CLIPS, batch_size=4, num_workers=2, seed=3)
NUM_BATCHES = 3  # two epochs


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    names = [f"clip{index}.mp4" for index in range(NUM_CLIPS)]
    for name in names:
        write_video(folder / name, width=64, height=64, num_frames=8)
    (folder / "list.csv").write_text("".join(f"{name},a,train\n" for name in names))
    out = folder / "manifest.parquet"
    index_dataset(format="csv", root=folder / "list.csv", out=out, num_processes=1)
    return out


def stream(manifest: Path, order: TrainingOrder = ORDER, first_batch: int = 0) -> Dataset:
    return training_stream(
        manifest=str(manifest),
        split="train",
        spec=SPEC,
        order=order,
        first_batch=first_batch,
        num_batches=NUM_BATCHES - first_batch,
        decoders=DecoderPool(num_decoders=2, cpus=0.5, timeout_s=60.0),
    )


def on_workers(dataset: Dataset, num_workers: int, block_size: int) -> list[list[Rows]]:
    """Blocks by worker, split as Ray Train splits them."""
    received: list[list[Rows]] = [[] for _ in range(num_workers)]

    def consume(rank: int, shard: Any) -> None:  # noqa: ANN401
        received[rank] = list(batches(shard, batch_size=block_size, prefetch_blocks=1))

    threads = [
        threading.Thread(target=consume, args=(rank, shard))
        for rank, shard in enumerate(dataset.streaming_split(num_workers, equal=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return received


@pytest.fixture(scope="module")
def full(manifest: Path) -> list[list[Rows]]:
    return on_workers(stream(manifest), ORDER.num_workers, ORDER.micro_batch_size)


def test_every_clip_comes_once_an_epoch(full: list[list[Rows]]) -> None:
    by_place = {
        (number, int(position)): int(sample)
        for blocks in full
        for number, block in enumerate(blocks)
        for position, sample in zip(block["position"], block["sample_id"], strict=True)
    }
    samples = [by_place[place] for place in sorted(by_place)]
    assert len(samples) == NUM_BATCHES * ORDER.batch_size
    epochs = samples[:NUM_CLIPS], samples[NUM_CLIPS:]
    assert [sorted(epoch) for epoch in epochs] == [list(range(NUM_CLIPS))] * 2
    assert epochs[0] != epochs[1]


def test_block_b_goes_to_worker_b_modulo_workers(full: list[list[Rows]]) -> None:
    for rank, blocks in enumerate(full):
        for number, block in enumerate(blocks):
            rows = range(
                (number * ORDER.num_workers + rank) * ORDER.micro_batch_size,
                (number * ORDER.num_workers + rank + 1) * ORDER.micro_batch_size,
            )
            places = [ORDER.place(row) for row in rows]
            assert block["sample_id"].tolist() == [place.sample_id for place in places]
            assert block["position"].tolist() == [place.position for place in places]
            assert block["clip"].shape == (ORDER.micro_batch_size, *SPEC.shape)
            assert block["clip"].dtype == np.uint8
            assert block["reason"].tolist() == [""] * ORDER.micro_batch_size


def test_workers_that_do_not_divide_the_batch_get_equal_blocks(
    manifest: Path, full: list[list[Rows]]
) -> None:
    order = replace(ORDER, num_workers=3)
    shares = on_workers(stream(manifest, order), 3, order.micro_batch_size)
    assert {len(blocks) for blocks in shares} == {NUM_BATCHES}
    by_place = [
        {
            (number, int(position)): int(sample)
            for blocks in received
            for number, block in enumerate(blocks)
            for position, sample in zip(block["position"], block["sample_id"], strict=True)
            if sample != NO_SAMPLE
        }
        for received in (shares, full)
    ]
    assert by_place[0] == by_place[1]


def test_resumed_stream_is_the_tail_of_the_full_one(manifest: Path, full: list[list[Rows]]) -> None:
    tail = on_workers(stream(manifest, first_batch=1), ORDER.num_workers, ORDER.micro_batch_size)
    for blocks, expected in zip(tail, full, strict=True):
        assert len(blocks) == NUM_BATCHES - 1
        for block, twin in zip(blocks, expected[1:], strict=True):
            for name in ("sample_id", "position", "label", "clip"):
                np.testing.assert_array_equal(block[name], twin[name])


def test_a_video_that_broke_after_indexing_is_a_row_with_a_reason(
    manifest: Path, full: list[list[Rows]]
) -> None:
    victim = manifest.parent / "clip2.mp4"
    content = victim.read_bytes()
    order = replace(ORDER, num_workers=1)
    try:
        victim.write_bytes(content[:200])
        rows = list(batches(stream(manifest, order), batch_size=4, prefetch_blocks=1))
    finally:
        victim.write_bytes(content)
    reasons = {
        int(sample): reason
        for block in rows
        for sample, reason in zip(block["sample_id"], block["reason"], strict=True)
    }
    assert len(reasons) == NUM_CLIPS
    assert {sample for sample, reason in reasons.items() if reason} == {2}
    assert "clip2.mp4" in reasons[2]


def test_decoders_that_are_killed_crash_or_hang_cost_the_clips_at_fault_alone(
    manifest: Path, full: list[list[Rows]], tmp_path: Path
) -> None:
    spec = LethalSpec(
        **asdict(SPEC), killed_at=0, crashes_at=2, hangs_at=4, flag=tmp_path / "killed"
    )
    dataset = training_stream(
        manifest=str(manifest),
        split="train",
        spec=spec,
        order=replace(ORDER, num_workers=1),
        first_batch=0,
        num_batches=NUM_BATCHES,
        decoders=DecoderPool(num_decoders=1, cpus=0.5, timeout_s=5.0),
    )
    rows = list(batches(dataset, batch_size=ORDER.batch_size, prefetch_blocks=1))
    assert spec.flag.exists()
    reasons = {
        int(sample): reason
        for block in rows
        for sample, reason in zip(block["sample_id"], block["reason"], strict=True)
    }
    assert {sample for sample, reason in reasons.items() if reason} == {2, 4}
    assert len(reasons) == NUM_CLIPS
    assert "2 decoding processes died" in reasons[2]
    assert "within 5 s" in reasons[4]
    for number, block in enumerate(rows):
        undisturbed = {
            int(position): (sample, clip)
            for blocks in full
            for position, sample, clip in zip(
                *(blocks[number][name] for name in ("position", "sample_id", "clip")), strict=True
            )
        }
        for position, sample, clip in zip(
            block["position"], block["sample_id"], block["clip"], strict=True
        ):
            expected_sample, expected_clip = undisturbed[int(position)]
            assert sample == expected_sample
            if not reasons[int(sample)]:
                np.testing.assert_array_equal(clip, expected_clip)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_evaluation_covers_every_video_once_in_equal_batches(
    manifest: Path, num_workers: int
) -> None:
    dataset = test_stream(
        manifest=str(manifest),
        split="train",
        spec=VIEWS,
        block_size=2,
        num_workers=num_workers,
        decoders=DecoderPool(num_decoders=1, cpus=0.5, timeout_s=60.0),
    )
    received = on_workers(dataset, num_workers, 2)
    samples = [block["sample_id"].tolist() for blocks in received for block in blocks]
    expected = [[0, 1], [2, 3], [4, 5]] + [[NO_SAMPLE] * 2] * (num_workers - 1)
    assert sorted(samples) == sorted(expected)
    assert [len(blocks) for blocks in received] == [len(expected) // num_workers] * num_workers
    assert {block["clip"].shape for blocks in received for block in blocks} == {(2, *VIEWS.shape)}


def spilled_bytes() -> int:
    """Bytes that the object store of this machine has ever written to disk."""
    summary = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
    assert "Plasma memory usage" in summary
    found = re.search(r"Spilled (\d+) MiB", summary)
    return int(found[1]) * 2**20 if found else 0


class Occupant:
    """Holds the CPUs that the workers of a small machine would."""

    def answer(self) -> bool:
        return True


def test_evaluation_goes_on_beside_a_training_stream_that_memory_holds_back(
    manifest: Path,
) -> None:
    occupant: Any = ray.remote(num_cpus=3)(Occupant).remote()
    assert ray.get(occupant.answer.remote())
    training = training_stream(
        manifest=str(manifest),
        split="train",
        spec=replace(SPEC, num_frames=64, short_side=64, crop_size=64),  # 0.8 MB a clip
        order=replace(ORDER, num_workers=1),
        first_batch=0,
        num_batches=300,  # 0.9 GB in all, more than the object store holds
        decoders=DecoderPool(num_decoders=1, cpus=0.4, timeout_s=60.0),
    )
    (shard,) = training.streaming_split(1, equal=True)
    held_back = batches(shard, batch_size=4, prefetch_blocks=1)
    next(held_back)
    time.sleep(10)  # until the object store's share is full
    evaluated: list[Rows] = []

    def evaluate() -> None:
        test = test_stream(
            manifest=str(manifest),
            split="train",
            spec=VIEWS,
            block_size=4,
            num_workers=1,
            decoders=DecoderPool(num_decoders=1, cpus=0.4, timeout_s=60.0),
        )
        evaluated.extend(batches(test, batch_size=4, prefetch_blocks=1))

    thread = threading.Thread(target=evaluate, daemon=True)
    thread.start()
    thread.join(timeout=60)
    ray.kill(occupant)
    assert len(evaluated) == 2
    assert spilled_bytes() == 0


def test_windows_that_crash_or_hang_their_decoder_cost_no_others(manifest: Path) -> None:
    """The long video has three windows; the first one's frames hang the process."""
    long_video = write_video(manifest.parent / "long.mp4", num_frames=40, width=64, height=64)
    names = [manifest.parent / f"clip{index}.mp4" for index in (1, 3)] + [long_video]
    stream = window_stream(
        videos=find_videos([str(name) for name in names], split=None),
        spec=LethalViewSpec(
            num_frames=2, short_side=36, crop_size=32, crashes="clip3.mp4", hangs="long.mp4"
        ),
        sliding=SlidingWindows(window_s=2.0, stride_s=1.0),
        parts=range(3),
        videos_per_part=1,
        windows_per_block=2,
        decoders=DecoderPool(num_decoders=1, cpus=0.5, timeout_s=4.0),
    )
    found = {}
    for block in all_blocks(stream):
        columns = (block[name] for name in ("part", "start_frame", "end_frame", "reason"))
        found |= {tuple(window): reason for *window, reason in zip(*columns, strict=True)}
    assert set(found) == {(0, 0, 8), (1, 0, 8), (2, 0, 20), (2, 10, 30), (2, 20, 40)}
    refused = {window: reason for window, reason in found.items() if reason}
    assert set(refused) == {(1, 0, 8), (2, 0, 20)}
    assert "2 decoding processes died" in refused[1, 0, 8]
    assert "within 4 s" in refused[2, 0, 20]
