"""What Ctrl-C does to a training run."""

import signal

import pytest

from dsts_ray.launch.progress import interrupted_by_ctrl_c


def test_ray_trains_end_at_ctrl_c_is_an_interruption_and_its_handler_does_not_stay() -> None:
    def end_of_a_run() -> None:
        with interrupted_by_ctrl_c():
            signal.signal(signal.SIGINT, lambda number, frame: None)
            raise SystemExit(0)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        end_of_a_run()
    assert signal.getsignal(signal.SIGINT) is before
