import pytest

from dsts_ray.launch.failure import out_of_memory


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.",
        "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 GB",
        "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.",
    ],
)
def test_the_line_that_tells_of_memory_is_found(line: str) -> None:
    errors = [ValueError("no worker"), RuntimeError(f"Traceback:\n  somewhere\n{line}\n")]
    assert out_of_memory(errors) == line


def test_of_what_rays_memory_monitor_says_the_figures_are_told() -> None:
    figures = (
        "Worker exit detail: 9 worker(s) were killed due to the node running low on memory. Memory "
        "on the node (IP: 192.0.2.2) was 22.81GB used / 23.54GB limit (0.968785)"
    )
    advice = "Refer to the documentation on how to address the out of memory issue: https://..."
    error = RuntimeError(f"The actor died unexpectedly.\n{figures}\nOOM kill reason\n{advice}")
    assert out_of_memory([error]) == figures


def test_other_failures_are_not_taken_for_it() -> None:
    assert out_of_memory([RuntimeError("gloo: connection closed by peer"), OSError("disk")]) is None
