"""From a release folder or a list to a manifest: read the annotations, open every video, write."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa

from dsts_ray.data.checks import (
    Finding,
    Refusal,
    check_annotations,
    check_videos,
    refused_table,
)
from dsts_ray.data.decode import MIN_FRAMES, VideoInfo
from dsts_ray.data.formats import csv, diving48, folder, ssv2
from dsts_ray.data.formats.annotations import Annotations
from dsts_ray.data.manifest import SCHEMA, UNKNOWN_LABEL, Manifest, write_parquet
from dsts_ray.data.storage import absolute, is_url, join, list_files, replacing
from dsts_ray.data.survey import NO_FILE, Survey, survey
from dsts_ray.errors import ConfigError, DataError

Format = Literal["diving48", "ssv2", "csv", "folder"]

_INFO_SCHEMA = pa.schema([SCHEMA.field(name) for name in VideoInfo._fields])
_NUM_REASONS_SHOWN = 3
_NO_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class IndexReport:
    """What an indexing found.

    Attributes:
        lists: Annotation files that were read.
        num_annotated: Rows of these.
        num_videos: Videos in the manifest.
        num_refused: Rows left out.
        refused_by_check: How many of these by the check that refused them.
        warnings: What may be wrong with the videos that stay.
        counts: Videos per split and class name ("unknown" for label -1), only those above zero.
    """

    lists: tuple[str, ...]
    num_annotated: int
    num_videos: int
    num_refused: int
    refused_by_check: dict[str, int]
    warnings: list[Finding]
    counts: dict[str, dict[str, int]]


class IndexFiles(NamedTuple):
    """What an indexing writes, beside each other."""

    manifest: Path
    refused: Path
    report: Path


def index_files(out: Path) -> IndexFiles:
    """Name the manifest, and after it the table of refused videos and the report (JSON)."""
    return IndexFiles(
        out, out.with_name(f"{out.stem}.refused.parquet"), out.with_name(f"{out.stem}.report.json")
    )


def index_dataset(
    *,
    format: Format,
    root: str | Path,
    out: Path,
    num_processes: int = 2,
    version: diving48.Version | None = None,
    videos: str | Path | None = None,
) -> IndexReport:
    """Write the manifest of a data set, with every distinct file decoded once to see that it can.

    Writes the files of ``index_files``. ``checks.py`` says what leaves a video out and what is only
    reported. An annotated part that goes beyond the video's end is clipped. Paths in the manifest
    are absolute, or URLs.

    Args:
        format: Which release, or "csv" and "folder" for videos of one's own.
        root: The release's or the videos' folder, the list for "csv"; a path or a URL.
        out: The manifest to write.
        num_processes: Processes that decode; 1 decodes in this one. A script that asks for more
            needs the ``__name__ == "__main__"`` guard.
        version: Of Diving48's lists; None takes V2's where they are.
        videos: Folder that the paths of "csv" are relative to, a path or a URL; None is the list's.

    Raises:
        ConfigError: Unknown format or version, a version of another format than Diving48, or
            ``videos`` of another one than "csv".
        DataError: ``root`` or an annotation file is missing or malformed, no video is listed, or
            not one can be used. Nothing is written then.
    """
    annotations = _read(format, str(root), version, videos)
    table = annotations.table
    if not len(table):
        raise DataError(f"the annotations of {root} list no video")
    refusals = check_annotations(table)
    paths = table["path"].to_pylist()
    surveyed = survey(paths, num_processes)
    records, part_refusals = _records(table, surveyed)
    refusals = part_refusals | _refuse_files(surveyed) | refusals  # what was found first counts
    usable = np.ones(len(table), bool)
    usable[list(refusals)] = False
    if not usable.any():
        raise DataError(_none_usable(root, refusals, paths))
    manifest = Manifest(records.filter(pa.array(usable)).cast(SCHEMA), annotations.classes)
    warnings = check_videos(
        manifest.table,
        surveyed.files[usable],
        annotations.classes,
        _not_annotated(annotations.folder, paths),
    )
    report = IndexReport(
        annotations.lists,
        len(table),
        len(manifest),
        len(refusals),
        _count_checks(refusals),
        warnings,
        _count(manifest),
    )
    files = index_files(out)
    write_parquet(refused_table(table, refusals), files.refused)
    with replacing(files.report) as partial:
        partial.write_text(json.dumps(_to_json(report), indent=1), encoding="utf-8")
    manifest.write(files.manifest)
    return report


def _read(
    format: Format, root: str, version: diving48.Version | None, videos: str | Path | None
) -> Annotations:
    if format not in get_args(Format):
        allowed = ", ".join(get_args(Format))
        raise ConfigError(f"unknown data format {format!r}: choose one of {allowed}")
    if version is not None and format != "diving48":
        raise ConfigError(f"version {version!r} is of Diving48's lists, the format is {format!r}")
    if videos is not None and format != "csv":
        raise ConfigError(
            f"a folder of videos ({videos}) is told for csv's lists, the format is {format!r}"
        )
    root = absolute(root)
    if not is_url(root) and not Path(root).exists():
        raise DataError(f"there is no data set at {root}; --root must name what you downloaded")
    if format == "diving48":
        return diving48.read_annotations(root, version)
    if format == "csv":
        return csv.read_annotations(root, absolute(videos) if videos else None)
    return {"ssv2": ssv2, "folder": folder}[format].read_annotations(root)


def _records(table: pa.Table, surveyed: Survey) -> tuple[pa.Table, dict[int, Refusal]]:
    """Rows of a manifest, and refusals of those whose annotated part is too short."""
    infos = _infos(surveyed)
    is_video = infos["num_frames"].is_valid().to_numpy()
    num_frames = infos["num_frames"].fill_null(0).to_numpy()
    start = table["start_frame"].to_numpy()
    stated_end = table["end_frame"].fill_null(_NO_END).to_numpy()
    end = np.minimum(stated_end, num_frames)
    too_short = is_video & ((end - start < MIN_FRAMES) | (start < 0))
    refusals = {
        row: Refusal(
            "part",
            f"annotated frames {start[row]} to {stated_end[row]} leave "
            f"{max(end[row] - start[row], 0)} of the {num_frames[row]} that decode, {MIN_FRAMES} "
            "or more are needed",
        )
        for row in np.flatnonzero(too_short).tolist()
    }
    columns = {name: table[name] for name in table.column_names}
    columns |= {name: infos[name] for name in infos.column_names}
    columns |= {"shard": pa.nulls(len(table), pa.string()), "row": pa.nulls(len(table), pa.int64())}
    columns |= {"end_frame": pa.array(end)}
    return pa.table({name: columns[name] for name in SCHEMA.names}), refusals


def _infos(surveyed: Survey) -> pa.Table:
    """What every row's file delivers, nulls where it is of no use."""
    unknown = (None,) * len(_INFO_SCHEMA)
    found = [info if isinstance(info, VideoInfo) else unknown for info in surveyed.found]
    columns = zip(*found, strict=True) if found else ([] for _ in unknown)
    nullable = pa.schema([field.with_nullable(True) for field in _INFO_SCHEMA])
    by_file = pa.table(list(map(list, columns)), schema=nullable)
    return by_file.take(pa.array(surveyed.files, mask=surveyed.files == NO_FILE))


def _refuse_files(surveyed: Survey) -> dict[int, Refusal]:
    no_file = Refusal("no file", "there is no such file")
    bad = [
        None if isinstance(found, VideoInfo) else Refusal("unreadable", found)
        for found in surveyed.found
    ]
    refusals = (no_file if file == NO_FILE else bad[file] for file in surveyed.files.tolist())
    return {row: refusal for row, refusal in enumerate(refusals) if refusal}


def _not_annotated(folder: str | None, paths: list[str]) -> set[str]:
    if folder is None:
        return set()
    try:
        present = {join(folder, name) for name in list_files(folder)}
    except DataError:  # without a folder every video is refused for its missing file
        return set()
    return present.difference(paths)


def _none_usable(root: str | Path, refusals: dict[int, Refusal], paths: list[str]) -> str:
    shown = "; ".join(
        f"{paths[row]}: {refusals[row].reason}" for row in sorted(refusals)[:_NUM_REASONS_SHOWN]
    )
    return f"none of the {len(refusals)} videos of {root} can be used: {shown}"


def _count_checks(refusals: Mapping[int, Refusal]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for refusal in refusals.values():
        counts[refusal.check] = counts.get(refusal.check, 0) + 1
    return dict(sorted(counts.items()))


def _count(manifest: Manifest) -> dict[str, dict[str, int]]:
    pairs = manifest.table.group_by(["split", "label"]).aggregate([([], "count_all")])
    counts: dict[str, dict[str, int]] = {}
    for pair in pairs.sort_by([("split", "ascending"), ("label", "ascending")]).to_pylist():
        label = pair["label"]
        name = "unknown" if label == UNKNOWN_LABEL else manifest.classes[label]
        counts.setdefault(pair["split"], {})[name] = pair["count_all"]
    return counts


def _to_json(report: IndexReport) -> dict[str, Any]:
    return {**asdict(report), "warnings": [warning._asdict() for warning in report.warnings]}
