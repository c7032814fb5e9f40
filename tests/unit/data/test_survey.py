"""A file that holds up whoever probes it: a pipe that nobody writes to."""

import os
from pathlib import Path

from dsts_ray.data.decode import VideoInfo
from dsts_ray.data.survey import survey
from tests.support.videos import write_video

NUM_GOOD = 40


def test_a_file_that_ends_processes_is_refused_and_no_other(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.mp4", num_frames=4).read_bytes()
    paths = [tmp_path / f"{number}.mp4" for number in range(NUM_GOOD)]
    for path in paths:
        path.write_bytes(good)
    os.mkfifo(tmp_path / "stuck.mp4")
    paths.insert(20, tmp_path / "stuck.mp4")
    found = survey([path.as_uri() for path in paths], 2, timeout_s=2.0)
    assert found.files.tolist() == list(range(NUM_GOOD + 1))
    refused = {
        number: reason
        for number, reason in enumerate(found.found)
        if not isinstance(reason, VideoInfo)
    }
    assert refused == {20: "2 processes died or hung while they decoded it"}
