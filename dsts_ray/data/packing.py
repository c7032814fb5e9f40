"""What goes into which shard, and the manifest of what was packed."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pyarrow as pa

from dsts_ray.data.checks import Refusal, refused_table
from dsts_ray.data.claim import claimed_folder
from dsts_ray.data.decode import probe
from dsts_ray.data.isolated import DecodingProcess
from dsts_ray.data.manifest import SCHEMA, Manifest, write_parquet
from dsts_ray.data.reencode import Reencoding
from dsts_ray.data.shards import ShardInfo, read_info, write_shard
from dsts_ray.data.storage import file_sizes, is_url, read_bytes
from dsts_ray.errors import ConfigError, DataError

MANIFEST = "manifest.parquet"
REFUSED = "manifest.refused.parquet"
RECORD = "pack.json"

_SHARD_BYTES = 512 * 2**20
_TIMEOUT_S = 3600.0  # that encoding a file anew may take
_BYTES = re.compile(r"(?P<number>[0-9]+)(?P<unit>|KiB|MiB|GiB)")
_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How videos become shards.

    Attributes:
        shard_bytes: Of the files in a shard, as they are before any encoding, at the most; a
            larger file has a shard of its own.
        reencoding: How to encode them anew; None keeps them as they are.
    """

    shard_bytes: int = _SHARD_BYTES
    reencoding: Reencoding | None = None

    def __post_init__(self) -> None:
        """Refuse what no file fits."""
        if self.shard_bytes < 1:
            raise ConfigError(f"shards of {self.shard_bytes} bytes: use 1 or more, say 512MiB")


class PackedFile(NamedTuple):
    """A file to pack: where it is, the first video that it is, and what it must deliver."""

    path: str
    video_id: str
    num_frames: int
    num_bytes: int | None


class Shard(NamedTuple):
    """Files that go into one shard, by row."""

    name: str
    files: tuple[PackedFile, ...]

    @property
    def num_bytes(self) -> int:
        """Of all files, before any encoding."""
        return sum(file.num_bytes or 0 for file in self.files)


class Plan(NamedTuple):
    """A function of manifest, file sizes and parameters alone.

    Attributes:
        shards: All of them.
        shard_of: Shard of every video of the manifest, int64 [videos].
        row_of: Its row there, int64 [videos].
        record: What decided the shards' content.
    """

    shards: list[Shard]
    shard_of: np.ndarray
    row_of: np.ndarray
    record: dict[str, Any]

    @property
    def key(self) -> str:
        """Stands for the record."""
        return hashlib.sha256(json.dumps(self.record).encode()).hexdigest()[:16]


def parse_bytes(text: str) -> int:
    """Read a number of bytes such as 512MiB, 2GiB or 1000.

    Raises:
        ConfigError: It is none.
    """
    match = _BYTES.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is no number of bytes: write one such as 512MiB, 2GiB or 1000")
    return int(match["number"]) * _UNITS[match["unit"]]


def plan_shards(manifest: Manifest, packing: Packing) -> Plan:
    """Deal the distinct files of a manifest to shards, in its order.

    Raises:
        DataError: Videos lie in shards already, or a file system cannot be asked.
    """
    table = manifest.table
    if table["path"].null_count:
        raise DataError("the manifest's videos lie in shards already; pack the one they came from")
    paths = table["path"].combine_chunks().dictionary_encode()
    file_of = paths.indices.to_numpy()
    _, first = np.unique(file_of, return_index=True)
    names = paths.dictionary.to_pylist()
    listed = table.select(["video_id", "num_frames"]).take(pa.array(first)).to_pydict()
    files = [
        PackedFile(*file)
        for file in zip(
            names, listed["video_id"], listed["num_frames"], file_sizes(names), strict=True
        )
    ]
    shard_of_file, row_of_file = _deal([file.num_bytes or 0 for file in files], packing)
    bounds = np.searchsorted(shard_of_file, np.arange(shard_of_file[-1] + 2))
    shards = [
        Shard(f"shard-{number:05d}.parquet", tuple(files[start:end]))
        for number, (start, end) in enumerate(pairwise(bounds))
    ]
    record = _record(manifest, packing, files)
    return Plan(shards, shard_of_file[file_of], row_of_file[file_of], record)


def _deal(sizes: Sequence[int], packing: Packing) -> tuple[np.ndarray, np.ndarray]:
    """Shard and row of every file."""
    places = np.empty((len(sizes), 2), np.int64)
    shard, row, filled = 0, 0, 0
    for number, size in enumerate(sizes):
        if row and filled + size > packing.shard_bytes:
            shard, row, filled = shard + 1, 0, 0
        places[number] = shard, row
        row, filled = row + 1, filled + size
    return places[:, 0], places[:, 1]


def _record(manifest: Manifest, packing: Packing, files: Sequence[PackedFile]) -> dict[str, Any]:
    sizes = json.dumps([file.num_bytes for file in files])
    record = {
        "manifest": manifest.digest,
        "files": hashlib.sha256(sizes.encode()).hexdigest()[:16],
        "shard_bytes": packing.shard_bytes,
    }
    if packing.reencoding is not None:
        record["short_side"] = packing.reencoding.short_side
        record["keyframe_interval"] = packing.reencoding.keyframe_interval
        record["av"] = av.__version__
    return record


def claimed(out: Path, record: dict[str, Any]) -> AbstractContextManager[None]:
    """Hold a folder for one packing, see ``claim.claimed_folder``."""
    return claimed_folder(out, record, file=RECORD, work="packing")


def missing_shards(plan: Plan, out: Path) -> list[Shard]:
    """List the shards that are not there yet.

    Raises:
        DataError: One that is there is damaged or comes from elsewhere.
    """
    missing = [shard for shard in plan.shards if not (out / shard.name).exists()]
    for shard in plan.shards:
        if shard not in missing and read_info(str(out / shard.name)).packing != plan.key:
            raise DataError(f"{out / shard.name} is of another packing: delete it to pack anew")
    return missing


def pack_shard(
    shard: Shard, out: Path, packing: Packing, key: str, *, timeout_s: float = _TIMEOUT_S
) -> Iterator[int]:
    """Write one shard; yields the bytes (before any encoding) of each file that is done.

    Files are encoded anew in a process of their own: one that ends it, or keeps it longer than
    ``timeout_s``, is refused.
    """
    encoded = DecodingProcess(partial(_encoder, packing), timeout_s=timeout_s)
    read = encoded if packing.reencoding else _unchanged
    rows = write_shard(
        out / shard.name,
        packing=key,
        video_ids=[file.video_id for file in shard.files],
        contents=(_content(file, read) for file in shard.files),
    )
    with closing(encoded):
        for row in rows:
            yield shard.files[row].num_bytes or 0


def _content(file: PackedFile, read: Callable[[PackedFile], bytes]) -> bytes | DataError:
    try:
        return read(file)
    except DataError as error:
        return DataError(str(error).removeprefix(f"{file.path}: "))


def _encoder(packing: Packing) -> Callable[[PackedFile], bytes]:
    assert packing.reencoding
    return partial(_encoded, packing.reencoding)


def _encoded(reencoding: Reencoding, file: PackedFile) -> bytes:
    content = reencoding.apply(read_bytes(file.path) if is_url(file.path) else file.path)
    num_frames = probe(content).num_frames
    if num_frames != file.num_frames:
        raise DataError(f"delivered {file.num_frames} frames when indexed, {num_frames} now")
    return content


def _unchanged(file: PackedFile) -> bytes:
    content = read_bytes(file.path)
    if len(content) != file.num_bytes:
        raise DataError(f"had {file.num_bytes} bytes when packing began, {len(content)} now")
    return content


def write_packed(manifest: Manifest, plan: Plan, packing: Packing, out: Path) -> pa.Table:
    """Write the manifest of finished shards, and beside it the table of videos they do not hold.

    Shards are named relative to the manifest, so that the folder may move.

    Returns:
        The second table, as ``checks.refused_table`` makes it.

    Raises:
        DataError: A shard is damaged, or no video is left.
    """
    infos = [read_info(str(out / shard.name)) for shard in plan.shards]
    refusals = _refusals(plan, infos)
    refused = refused_table(manifest.table, refusals)
    kept = np.ones(len(manifest), bool)
    kept[list(refusals)] = False
    if not kept.any():
        raise DataError(f"no video could be packed, the first: {refused['reason'][0].as_py()}")
    names = pa.array([shard.name for shard in plan.shards])
    columns = {name: manifest.table[name] for name in SCHEMA.names}
    columns |= {"path": pa.nulls(len(manifest), pa.string())}
    columns |= {"shard": names.take(pa.array(plan.shard_of)), "row": pa.array(plan.row_of)}
    if packing.reencoding is not None:
        sizes = zip(columns["width"].to_pylist(), columns["height"].to_pylist(), strict=True)
        new = np.array([packing.reencoding.size(*size) for size in sizes])
        columns |= {"width": pa.array(new[:, 0]), "height": pa.array(new[:, 1])}
    table = pa.table(columns, schema=SCHEMA).filter(pa.array(kept))
    write_parquet(refused, out / REFUSED)
    Manifest(table, manifest.classes).write(out / MANIFEST)
    return refused


def _refusals(plan: Plan, infos: Sequence[ShardInfo]) -> dict[int, Refusal]:
    if not any(info.refused for info in infos):
        return {}
    reasons = (
        infos[shard].refused.get(row)
        for shard, row in zip(plan.shard_of.tolist(), plan.row_of.tolist(), strict=True)
    )
    return {number: Refusal("packing", reason) for number, reason in enumerate(reasons) if reason}
