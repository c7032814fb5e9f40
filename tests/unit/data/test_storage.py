import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from dsts_ray.data.storage import (
    absolute,
    file_exists,
    file_sizes,
    is_url,
    join,
    list_files,
    opened,
    parent,
    read_bytes,
    replacing,
)
from dsts_ray.errors import DataError
from tests.support.bucket import bucket_with


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "a b").mkdir(parents=True)
    (folder / "a b" / "1.txt").write_bytes(b"one")
    (folder / "2.txt").write_bytes(b"twoo")
    (folder / ".hidden").touch()
    (folder / ".folder").mkdir()
    (folder / ".folder" / "3.txt").touch()
    (folder / "link.txt").symlink_to(folder / "2.txt")
    return folder


@pytest.fixture
def server(files: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(files))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def memory(files: Path) -> Iterator[str]:
    with bucket_with(files) as url:
        yield url


def test_local_files_and_urls_are_read_alike(files: Path, server: str, memory: str) -> None:
    for root in (str(files), f"file://{files}", server, memory):
        assert read_bytes(join(root, "2.txt")) == b"twoo"
        assert file_exists(join(root, "2.txt"))
        assert not file_exists(join(root, "3.txt"))
        paths = [join(root, name) for name in ("2.txt", "3.txt")]
        assert file_sizes([*paths, str(files / "a b" / "1.txt")]) == [4, None, 3]
        with pytest.raises(DataError, match=r"3\.txt: there is no such file"):
            read_bytes(join(root, "3.txt"))
        if root == server:  # this one knows no ranges
            continue
        with opened(join(root, "2.txt")) as file:
            file.seek(2)
            assert file.read() == b"oo"


@pytest.mark.parametrize(("num_files", "num_asked"), [(3, 3), (150, 0)])
def test_sizes_of_many_files_are_asked_of_their_folder(
    files: Path, memory: str, monkeypatch: pytest.MonkeyPatch, num_files: int, num_asked: int
) -> None:
    system = fsspec.filesystem("memory")
    sizes = {f"{number}.mp4": number % 7 for number in range(num_files)}
    for name, size in sizes.items():
        system.pipe(f"/bucket/{files.name}/{name}", b"x" * size)
    asked = []
    info = type(system).info

    def asking(self: object, path: str, **options: object) -> object:
        asked.append(path)
        return info(system, path, **options)

    monkeypatch.setattr(type(system), "info", asking)
    sizes["2.txt"] = 4
    del sizes["1.mp4"]
    system.rm(f"/bucket/{files.name}/1.mp4")
    asked.clear()
    names = [*sizes, "1.mp4"]
    found = file_sizes([join(memory, name) for name in reversed(names)])
    assert found == [sizes.get(name) for name in reversed(names)]
    assert len([path for path in asked if path.endswith(".mp4")]) == num_asked


def test_files_of_a_folder(files: Path, memory: str) -> None:
    expected = {"2.txt": 4, "a b/1.txt": 3, "link.txt": 4}
    assert list_files(str(files)) == expected
    assert list_files(f"{files}/") == expected
    assert list_files(memory) == expected
    with pytest.raises(DataError, match="nowhere: there is no such file"):
        list_files(str(files / "nowhere"))


def test_paths_are_joined_before_the_options_of_a_url() -> None:
    root = "s3://bucket/folder?endpoint_override=127.0.0.1:9000&scheme=http"
    path = join(root, "a b/1.mp4")
    assert path == "s3://bucket/folder/a b/1.mp4?endpoint_override=127.0.0.1:9000&scheme=http"
    assert parent(path) == join(root, "a b")
    assert join("/who?/root", "what?.mp4") == "/who?/root/what?.mp4"
    assert join("s3://bucket/", "/abs/1.mp4") == "/abs/1.mp4"
    assert join("s3://bucket", "gs://other/1.mp4") == "gs://other/1.mp4"
    assert join("/root", "file:///abs/1.mp4") == "/abs/1.mp4"
    assert parent("/root/1.mp4") == "/root"


def test_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a/../b") == str(tmp_path / "b")
    assert absolute(f"file://{tmp_path}") == str(tmp_path)
    assert absolute("gs://bucket/x") == "gs://bucket/x"
    assert is_url("s3://bucket")
    assert not is_url("C://bucket")
    assert not is_url("a/b://c")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nosuch://x/y", "nosuch:// cannot be read: Protocol not known"),
        ("s3://bucket/x?nonsense=1", "s3://bucket/?nonsense=1: .*query parameter"),
        ("http://127.0.0.1:9/x", "there is no such file, or its server does not answer"),
    ],
)
def test_what_cannot_be_read_is_named(path: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason.replace("?", r"\?")):
        read_bytes(path)


def test_a_file_system_that_does_not_open_is_named() -> None:
    """Here for want of Java or of the server; a bucket that does not exist fails likewise."""
    for ask in (read_bytes, lambda path: file_sizes([path])):
        with pytest.raises(DataError, match=r"hdfs://127\.0\.0\.1:9/x: cannot be read"):
            ask("hdfs://127.0.0.1:9/x")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert not file_exists(str(tmp_path))
    with pytest.raises(DataError, match="is a directory"):
        read_bytes(str(tmp_path))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with replacing(path) as partial:
        partial.write_text("old")
        assert not path.exists()

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["file"]
