import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dsts_ray.errors import CheckpointError
from dsts_ray.train.checksums import CHECKSUMS_FILE, verify, write_sealed

WEIGHTS = {"weight": torch.arange(120_000, dtype=torch.float32)}


def write(folder: Path) -> None:
    save_file(WEIGHTS, folder / "model.safetensors")
    (folder / "state.json").write_text("{}")


def sealed(folder: Path) -> Path:
    write_sealed(folder, write)
    return folder


def test_a_sealed_folder_lists_sizes_and_digests_of_its_files(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "one")
    verify(folder)
    files = json.loads((folder / CHECKSUMS_FILE).read_text())["files"]
    assert files["state.json"] == {
        "bytes": 2,
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    }
    assert set(files) == {"model.safetensors", "state.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        Path.unlink,
    ],
    ids=["bit", "short", "empty", "missing"],
)
@pytest.mark.parametrize("name", ["model.safetensors", "state.json", CHECKSUMS_FILE])
def test_damage_is_found_and_the_file_named(
    tmp_path: Path, damage: Callable[[Path], object], name: str
) -> None:
    folder = sealed(tmp_path / "one")
    damage(folder / name)
    with pytest.raises(CheckpointError, match="damaged" if name == CHECKSUMS_FILE else name):
        verify(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": 3}', '{"files": {"state.json": 3}}'])
def test_a_list_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    folder = sealed(tmp_path / "one")
    (folder / CHECKSUMS_FILE).write_text(content)
    with pytest.raises(CheckpointError, match="damaged"):
        verify(folder)


def test_a_full_disk_leaves_nothing(tmp_path: Path, small_disk: Path) -> None:
    del tmp_path
    kept = sealed(small_disk / "one")
    with pytest.raises(CheckpointError, match=r"two: cannot write it .*No space left on device"):
        write_sealed(small_disk / "two", write)
    assert [path.name for path in small_disk.iterdir()] == ["one"]
    verify(kept)
    assert torch.equal(load_file(kept / "model.safetensors")["weight"], WEIGHTS["weight"])
