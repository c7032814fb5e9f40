"""What a decoding process knows of the clips its predecessors died at."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsts_ray.data.watch import Watch
from dsts_ray.errors import DataError

CHILD = """
import ctypes, os, signal, sys, time
from dsts_ray.data.watch import Watch
watch = Watch("stream", timeout_s=float(sys.argv[2]))
with watch.over(3):
    pass
with watch.over(5):
    if sys.argv[1] == "crash":
        ctypes.string_at(0)
    elif sys.argv[1] == "hang":
        ctypes.PyDLL(None).sleep(60)  # holds the interpreter's lock, as a decoder may
    elif sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def decode_in_a_process(what: str, timeout_s: float = 60.0) -> int:
    command = [sys.executable, "-c", CHILD, what, str(timeout_s)]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.parametrize("what", ["crash", "killed"])
def test_a_clip_that_two_processes_died_at_is_refused(what: str) -> None:
    assert decode_in_a_process(what) < 0
    with Watch("stream", 60.0).over(5):
        pass  # the first death may have had another cause
    assert decode_in_a_process(what) < 0
    watch = Watch("stream", 60.0)
    with pytest.raises(DataError, match="2 decoding processes died at it"), watch.over(5):
        pytest.fail("was decoded again")
    with watch.over(3):
        pass


def test_a_clip_beyond_the_time_limit_ends_its_process_and_is_refused_at_once() -> None:
    assert decode_in_a_process("hang", timeout_s=0.5) == 1
    watch = Watch("stream", 0.5)
    with (
        pytest.raises(DataError, match=r"did not decode within 0.5 s \(data.decode_timeout_s\)"),
        watch.over(5),
    ):
        pytest.fail("was decoded again")


def test_processes_that_live_ended_well_or_decode_another_stream_do_not_count() -> None:
    assert decode_in_a_process("nothing") == 0
    alive = Watch("stream", 60.0)
    with alive.over(5), Watch("stream", 60.0).over(5):
        pass
    for _ in range(2):
        assert decode_in_a_process("killed") < 0
    with Watch("another", 60.0).over(5):
        pass


def test_the_clips_own_error_passes_and_leaves_nothing_behind() -> None:
    watch = Watch("stream", 60.0)
    with pytest.raises(DataError, match="broken"), watch.over(5):
        raise DataError("broken")
    del watch
    for _ in range(2):
        with Watch("stream", 60.0).over(5):
            pass


@pytest.mark.parametrize("stream", ["stream", "another"])
def test_a_note_that_another_process_removes_meanwhile_is_none(
    monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    with Watch(stream, 60.0).over(5):
        pass
    listed = Path.iterdir

    def list_and_lose(folder: Path) -> Iterator[Path]:
        notes = list(listed(folder))
        for note in notes:
            note.unlink()
        return iter(notes)

    monkeypatch.setattr(Path, "iterdir", list_and_lose)
    with Watch("stream", 60.0).over(5):
        pass
