"""Writing that is cut short: a disk that is full, a process killed at a chosen point."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


@contextmanager
def small_file_system(folder: Path, size: str) -> Iterator[str]:
    """Mount a file system of a size, as ``200k``, on a folder; yields why not, empty where it is.

    Only root can.
    """
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        yield str(error)
        return
    if result.returncode:
        yield result.stderr.strip()
        return
    try:
        yield ""
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def killed_at_event(work: Callable[[], None], number: int) -> bool:
    """Run in a child process that kills itself before the n-th change of the file system.

    Returns:
        False where the work was done before.
    """

    def count(event: str, _: tuple) -> None:
        nonlocal number
        if event in _EVENTS:
            number -= 1
            if number < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return _killed(work, before=lambda: sys.addaudithook(count))


def killed_after(work: Callable[[], None], seconds: float) -> bool:
    """Run in a child process that is killed after a time; False where the work was done before."""
    return _killed(work, after_s=seconds)


def _killed(
    work: Callable[[], None], *, before: Callable[[], None] | None = None, after_s: float = 0.0
) -> bool:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if before:
                before()
            work()
            code = 0
        finally:
            os._exit(code)
    if after_s:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False
