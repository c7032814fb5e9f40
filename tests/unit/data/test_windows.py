import doctest

import pytest

from dsts_ray.data import windows
from dsts_ray.data.windows import SlidingWindows, sliding_windows
from dsts_ray.errors import ConfigError, DataError


def test_the_worked_examples() -> None:
    results = doctest.testmod(windows)
    assert results.attempted == 2
    assert results.failed == 0


@pytest.mark.parametrize("num_frames", [1, 7, 8, 9, 30, 101])
@pytest.mark.parametrize(("window_s", "stride_s"), [(1.0, 1.0), (1.0, 0.3), (0.01, 0.001)])
def test_every_frame_is_in_a_window_and_no_window_ends_beyond_the_video(
    num_frames: int, window_s: float, stride_s: float
) -> None:
    laid = SlidingWindows(window_s=window_s, stride_s=stride_s).over(num_frames, fps=8.0)
    assert set().union(*(range(*window) for window in laid)) == set(range(num_frames))
    assert len(set(laid)) == len(laid)
    assert laid == sorted(laid)


def test_a_stride_is_half_a_window_unless_given() -> None:
    assert sliding_windows(4.0, None) == SlidingWindows(window_s=4.0, stride_s=2.0)
    assert sliding_windows(4.0, 4.0) == SlidingWindows(window_s=4.0, stride_s=4.0)
    assert sliding_windows(None, None) is None


@pytest.mark.parametrize(
    ("window_s", "stride_s"), [(0.0, 0.0), (1.0, 1.5), (1.0, 0.0), (-1.0, -1.0), (float("nan"), 1)]
)
def test_windows_that_leave_frames_out(window_s: float, stride_s: float) -> None:
    with pytest.raises(ConfigError, match="no longer than the window"):
        SlidingWindows(window_s=window_s, stride_s=stride_s)


def test_a_file_without_frame_rate() -> None:
    with pytest.raises(DataError, match="does not state its frame rate"):
        SlidingWindows(window_s=1.0, stride_s=1.0).over(9, fps=0.0)
