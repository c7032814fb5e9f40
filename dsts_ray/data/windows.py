"""Which frames of a video one prediction is about: all of them, or windows that slide over it.

Windows are told in seconds, because an action takes as long at any frame rate; frame numbers follow
from the rate that the container states.

Worked example: 10 frames at 2 per second, windows of 2 s every 1 s are frames 0-3, 2-5, 4-7, 6-9.
With 11 frames the last window ends with the video: 7-10.

    >>> SlidingWindows(window_s=2, stride_s=1).over(11, fps=2.0)
    [(0, 4), (2, 6), (4, 8), (6, 10), (7, 11)]
    >>> SlidingWindows(window_s=2, stride_s=1).over(3, fps=2.0)
    [(0, 3)]
"""

from dataclasses import dataclass

from dsts_ray.errors import ConfigError, DataError

Window = tuple[int, int]
"""First frame and end, exclusive."""


@dataclass(frozen=True, kw_only=True)
class SlidingWindows:
    """Windows of one length at even distances.

    Attributes:
        window_s: Length, above 0.
        stride_s: From the beginning of one to that of the next, above 0 and no longer than a
            window, so that no frame is left out.
    """

    window_s: float
    stride_s: float

    def __post_init__(self) -> None:
        """Refuse what leaves frames out.

        Raises:
            ConfigError: Says which lengths are allowed.
        """
        if not 0 < self.stride_s <= self.window_s < float("inf"):
            raise ConfigError(
                f"a window of {self.window_s:g} s with a stride of {self.stride_s:g} s: both must "
                "be above 0, and the stride no longer than the window, or frames are left out"
            )

    def over(self, num_frames: int, fps: float) -> list[Window]:
        """Lay windows over a video; the last one ends with it.

        Args:
            num_frames: Of the video, 1 or more.
            fps: Frames per second.

        Returns:
            Windows of at least one frame, in order; one of all frames where these are fewer.

        Raises:
            DataError: The frame rate is not known.
        """
        if fps <= 0:
            raise DataError("the file does not state its frame rate, so it has no windows")
        length, stride = (max(1, round(each * fps)) for each in (self.window_s, self.stride_s))
        if num_frames <= length:
            return [(0, num_frames)]
        last = num_frames - length
        starts = [*range(0, last, stride), last]
        return [(start, start + length) for start in starts]


def sliding_windows(window_s: float | None, stride_s: float | None) -> SlidingWindows | None:
    """Windows of a length, every half of it unless a stride is given; None for None.

    Raises:
        ConfigError: As :class:`SlidingWindows`.
    """
    if window_s is None:
        return None
    return SlidingWindows(
        window_s=window_s, stride_s=window_s / 2 if stride_s is None else stride_s
    )
