"""Files by local path or by URL: ``s3://``, ``gs://``, ``hdfs://``, and whatever fsspec knows.

pyarrow's own file systems come first, fsspec's stand in for the other schemes. A URL is taken as
it is written, nothing in it is percent-encoded; what follows a ``?`` are options of the file system
(``s3://bucket/folder?endpoint_override=127.0.0.1:9000&scheme=http``).
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs

from dsts_ray.errors import DataError

_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_FILE = "file://"
_WEB = ("http://", "https://")  # their servers list nothing
_LISTED_FROM = 100  # files of a folder; a list of it costs a request for some thousand names


def is_url(path: str) -> bool:
    """Tell a URL from a local path."""
    return _URL.match(path) is not None


def absolute(path: str | Path) -> str:
    """Name a file or folder for other processes: an absolute local path, or a URL but file://."""
    path = str(path)
    if path.startswith(_FILE):
        path = path.removeprefix(_FILE)
    return path if is_url(path) else str(Path(path).expanduser().resolve())


def join(root: str, name: str) -> str:
    """Name a file by its path relative to a folder; absolute paths and URLs stay as they are."""
    if name.startswith(_FILE):
        return name.removeprefix(_FILE)
    if is_url(name) or name.startswith("/"):
        return name
    folder, mark, options = root.partition("?") if is_url(root) else (root, "", "")
    return f"{folder.rstrip('/')}/{name}{mark}{options}"


def without_options(path: str) -> str:
    """A URL without what follows its ``?``; a local path as it is."""
    return path.partition("?")[0] if is_url(path) else path


def base_name(path: str) -> str:
    """Name of a file in its folder."""
    return without_options(path).rpartition("/")[2]


def parent(path: str) -> str:
    """Folder of a file."""
    if not is_url(path):
        return str(Path(path).parent)
    name, mark, options = path.partition("?")
    return f"{name.rpartition('/')[0]}{mark}{options}"


@contextmanager
def opened(path: str) -> Iterator[pa.NativeFile]:
    """Open a file for reading at any place.

    Raises:
        DataError: It is missing or cannot be read, here or within the context.
    """
    with _named_errors(path), open_file(path) as file:
        yield file


def open_file(path: str) -> pa.NativeFile:
    """Open a file for reading at any place; the caller closes it.

    Raises:
        DataError: It is missing or cannot be read.
    """
    with _named_errors(path):
        system, inner = locate(path)
        return system.open_input_file(inner)


def read_bytes(path: str) -> bytes:
    """Read a whole file.

    Raises:
        DataError: It is missing or cannot be read.
    """
    with opened(path) as file:
        return file.read()


def file_exists(path: str) -> bool:
    """Tell whether there is a file of this name; a folder is none.

    Raises:
        DataError: Its file system cannot be asked.
    """
    with _named_errors(path):
        system, inner = locate(path)
        return system.get_file_info(inner).type == pafs.FileType.File


def list_files(root: str) -> dict[str, int | None]:
    """List the files below a folder by their relative path, sorted, with their size in bytes.

    Links are followed; what begins with a dot, and what lies in a folder that does, is left out.

    Raises:
        DataError: The folder is missing or cannot be read.
    """
    with _named_errors(root):
        system, inner = locate(root)
        entries = system.get_file_info(pafs.FileSelector(inner, recursive=True))
        base = system.normalize_path(inner).rstrip("/") + "/"
        found = {
            entry.path.removeprefix(base): entry.size
            for entry in entries
            if entry.type == pafs.FileType.File
        }
    return {name: found[name] for name in sorted(found) if "/." not in f"/{name}"}


def file_sizes(paths: Sequence[str]) -> list[int | None]:
    """Ask for the sizes of many files, in bytes, None where there is none.

    Raises:
        DataError: A file system cannot be asked.
    """
    by_folder: defaultdict[str, list[int]] = defaultdict(list)
    for number, path in enumerate(paths):
        by_folder[parent(path) if is_url(path) else ""].append(number)
    sizes: list[int | None] = [None] * len(paths)
    for folder, numbers in by_folder.items():
        asked = [paths[number] for number in numbers]
        with _named_errors(asked[0]):
            found = _listed_sizes(folder, asked) or _asked_sizes(asked)
        for number, path in zip(numbers, asked, strict=True):
            sizes[number] = found.get(path)
    return sizes


def _asked_sizes(paths: Sequence[str]) -> dict[str, int | None]:
    located = [locate(path) for path in paths]
    infos = located[0][0].get_file_info([inner for _, inner in located])
    return {path: info.size for path, info in zip(paths, infos, strict=True)}


def _listed_sizes(folder: str, paths: Sequence[str]) -> dict[str, int | None]:
    """Sizes by the folder's list; none where that is not less work, or nobody may list it."""
    if not folder or folder.startswith(_WEB) or len(paths) < _LISTED_FROM:
        return {}
    system, inner = locate(folder)
    with suppress(OSError):
        infos = system.get_file_info(pafs.FileSelector(inner, allow_not_found=True))
        size_of = {info.base_name: info.size for info in infos}
        return {path: size_of.get(base_name(path)) for path in paths}
    return {}


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a local file under another name in its folder, which is made, then move it into place.

    A reader sees either the old file or the whole new one; an error leaves the old one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def locate(path: str) -> tuple[pafs.FileSystem, str]:
    """Find the file system of a path, and the path within it.

    Raises:
        DataError: No package knows the scheme.
    """
    if not is_url(path):
        return _local(), path
    scheme, _, rest = path.partition("://")
    if scheme in ("http", "https"):
        return _by_fsspec(scheme), path
    rest, _, options = rest.partition("?")
    authority, _, inner = rest.partition("/")
    system, base = _file_system(scheme, authority, options)
    return system, f"{base.rstrip('/')}/{inner}".rstrip("/")


@lru_cache(maxsize=1)
def _local() -> pafs.FileSystem:
    return pafs.LocalFileSystem()


@lru_cache(maxsize=16)
def _file_system(scheme: str, authority: str, options: str) -> tuple[pafs.FileSystem, str]:
    """File system of a bucket or server; making one may ask the network."""
    url = f"{scheme}://{authority}/" + (f"?{options}" if options else "")
    try:
        return pafs.FileSystem.from_uri(url)
    except pa.ArrowInvalid as error:
        if "Unrecognized filesystem type" not in str(error):
            raise DataError(f"{url}: {error}") from error
    return _by_fsspec(scheme), f"/{authority}" if scheme == "memory" else authority


@lru_cache(maxsize=16)
def _by_fsspec(scheme: str) -> pafs.FileSystem:
    try:
        return pafs.PyFileSystem(pafs.FSSpecHandler(fsspec.filesystem(scheme)))
    except (ImportError, ValueError) as error:
        raise DataError(f"{scheme}:// cannot be read: {error}") from error


@contextmanager
def _named_errors(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        asked = ", or its server does not answer" if is_url(path) else ""
        raise DataError(f"{path}: there is no such file{asked}") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
