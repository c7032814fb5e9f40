"""What Ctrl-C and SIGTERM do to runs and sweeps."""

import signal

import pytest

from dsts_ray.launch.progress import interrupted_by_ctrl_c, interrupted_by_sigterm


def test_ray_trains_end_at_ctrl_c_is_an_interruption_and_its_handler_does_not_stay() -> None:
    def end_of_a_run() -> None:
        with interrupted_by_ctrl_c():
            signal.signal(signal.SIGINT, lambda number, frame: None)
            raise SystemExit(0)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        end_of_a_run()
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_is_an_interruption_while_it_is_asked_for() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
