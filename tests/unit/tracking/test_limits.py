from pathlib import Path

import pytest

from dsts_ray.errors import ConfigError, LimitError
from dsts_ray.tracking.limits import ServingLimits


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "served"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "clip.mp4").write_bytes(bytes(100))
    (root / "large.mp4").write_bytes(bytes(101))
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "served too").mkdir()
    (root / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "up").symlink_to(tmp_path)
    (root / "circle").symlink_to(root / "circle")
    (root / "in.mp4").symlink_to(root / "folder" / "clip.mp4")
    return root


@pytest.fixture
def limits(root: Path) -> ServingLimits:
    return ServingLimits.of({"DSTS_SERVE_ROOT": str(root), "DSTS_SERVE_MAX_BYTES": "100"})


def test_files_of_the_folder_pass(limits: ServingLimits, root: Path) -> None:
    clip = root / "folder" / "clip.mp4"
    for path in ("folder/clip.mp4", str(clip), "in.mp4", "folder/../in.mp4", "up/served/in.mp4"):
        assert limits.check(path) == str(clip)
    assert limits.check(b"content") == b"content"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.mp4",
        "out.mp4",
        "up/secret.mp4",
        "/etc/passwd",
        "../served too/x.mp4",
        "/proc/self/environ",
        "../nowhere/at/all.mp4",
    ],
)
def test_nothing_outside_the_folder_passes(limits: ServingLimits, path: str) -> None:
    with pytest.raises(LimitError, match="lies outside the folder") as refused:
        limits.check(path)
    assert "secret" not in str(refused.value).replace(path, "")


@pytest.mark.parametrize(
    "path", ["", ".", "folder", "gone.mp4", "circle", "nul\0.mp4", "x" * 5000, "http://host/a.mp4"]
)
def test_what_is_no_file(limits: ServingLimits, path: str) -> None:
    with pytest.raises(LimitError, match="there is no such file"):
        limits.check(path)


def test_sizes(limits: ServingLimits) -> None:
    assert limits.check(bytes(100)) == bytes(100)
    with pytest.raises(LimitError, match=r"the video has 101 bytes; this server takes 100"):
        limits.check(bytes(101))
    with pytest.raises(LimitError, match=r"'large.mp4' has 101 bytes; this server takes 100"):
        limits.check("large.mp4")


def test_without_a_folder_no_path_passes(root: Path) -> None:
    limits = ServingLimits.of({})
    assert (limits.max_bytes, limits.max_seconds, limits.timeout_s) == (2**27, 600.0, 30.0)
    with pytest.raises(LimitError, match="takes no paths"):
        limits.check(str(root / "folder" / "clip.mp4"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DSTS_SERVE_MAX_BYTES", "-1"),
        ("DSTS_SERVE_MAX_SECONDS", "long"),
        ("DSTS_SERVE_TIMEOUT_S", "0"),
        ("DSTS_SERVE_TIMEOUT_S", "nan"),
        ("DSTS_SERVE_ROOT", "/no/such/folder"),
    ],
)
def test_variables_that_say_nothing(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value}: "):
        ServingLimits.of({name: value})
