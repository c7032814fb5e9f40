import contextlib
import gc
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dsts_ray.data.decode import (
    Display,
    _decode_with_decord,
    _decode_with_pyav,
    _resized,
    decode_clip,
    probe,
)
from dsts_ray.data.sampling import middle_frames
from dsts_ray.errors import DataError
from tests.support.videos import (
    OTHER_VIDEOS,
    draw_frame,
    read_index,
    truncate,
    write_audio,
    write_video,
)

CONTAINERS = (".mp4", ".mkv", ".webm", ".avi")


def all_frames(num_frames: int) -> np.ndarray:
    return np.arange(num_frames)


def middle(num_frames: int) -> np.ndarray:
    return middle_frames(num_frames, clip_length=8, sampling="segments")[0]


def indices_of(frames: np.ndarray) -> list[int]:
    return [read_index(frame) for frame in frames]


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_probe_counts_what_decodes(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"video{suffix}", num_frames=23, width=64, height=48, fps=10)
    info = probe(str(path))
    assert info == (23, 10.0, 64, 48, 0)
    assert probe(path.read_bytes()) == info


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_frames_are_those_asked_for(tmp_path: Path, suffix: str, as_bytes: bool) -> None:
    path = write_video(tmp_path / f"video{suffix}", num_frames=30)
    source = path.read_bytes() if as_bytes else str(path)
    wanted = np.array([0, 5, 5, 13, 29])
    seen: list[int] = []

    def sample(num_frames: int) -> np.ndarray:
        seen.append(num_frames)
        return wanted

    frames = decode_clip(source, sample, short_side=None)
    assert frames.shape == (5, 48, 64, 3)
    assert frames.dtype == np.uint8
    assert indices_of(frames) == wanted.tolist()
    assert seen == [30]


@pytest.mark.parametrize("decode", [_decode_with_decord, _decode_with_pyav])
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_both_decoders_deliver_every_frame(
    tmp_path: Path, decode: Callable[..., np.ndarray], suffix: str
) -> None:
    path = write_video(tmp_path / f"video{suffix}", num_frames=30)
    assert indices_of(decode(str(path), all_frames, (64, 48))) == list(range(30))


def test_the_annotated_part_is_what_gets_sampled(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "video.mp4", num_frames=20))

    def frames(first_frame: int, end_frame: int | None) -> list[int]:
        return indices_of(
            decode_clip(
                path, all_frames, short_side=None, first_frame=first_frame, end_frame=end_frame
            )
        )

    assert frames(4, 9) == [4, 5, 6, 7, 8]
    assert frames(17, None) == [17, 18, 19]
    assert frames(17, 400) == [17, 18, 19]
    with pytest.raises(DataError, match=r"starts at frame 20 .* delivers 20 frames"):
        frames(20, 30)


def test_resizes_to_the_short_side(tmp_path: Path) -> None:
    wide = str(write_video(tmp_path / "wide.mp4", width=90, height=64))
    tall = str(write_video(tmp_path / "tall.mp4", width=64, height=90))
    assert decode_clip(wide, all_frames, short_side=32).shape == (12, 32, 44, 3)
    assert decode_clip(tall, all_frames, short_side=32).shape == (12, 44, 32, 3)
    assert decode_clip(wide, all_frames, short_side=128).shape == (12, 64, 90, 3)  # is smaller
    assert indices_of(decode_clip(wide, all_frames, short_side=32)) == list(range(12))


@pytest.mark.parametrize(
    ("width", "height", "short_side", "expected"),
    [
        (340, 256, 128, (170, 128)),
        (426, 240, 128, (228, 128)),
        (320, 568, 128, (128, 228)),
        (50, 50, 33, (33, 33)),
        (52, 50, 33, (34, 33)),
        (64, 48, None, (64, 48)),
    ],
)
def test_resized_keeps_the_aspect_with_an_even_long_side(
    width: int, height: int, short_side: int | None, expected: tuple[int, int]
) -> None:
    assert _resized(width, height, short_side) == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("rotation", "clockwise"), [(90, 270), (180, 180), (270, 90)])
def test_rotation_is_applied(tmp_path: Path, suffix: str, rotation: int, clockwise: int) -> None:
    upright = str(write_video(tmp_path / f"upright{suffix}"))
    turned = str(write_video(tmp_path / f"turned{suffix}", rotation=rotation))
    info = probe(turned)
    assert (info.width, info.height) == ((64, 48) if rotation == 180 else (48, 64))
    assert info.rotation == clockwise
    expected = np.rot90(decode_clip(upright, all_frames, short_side=None), rotation // 90, (1, 2))
    frames = decode_clip(turned, all_frames, short_side=None)
    assert np.abs(frames.astype(int) - expected).mean() < 1
    again = decode_clip(turned, all_frames, short_side=None, display=_known(turned))
    assert np.array_equal(again, frames)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("short_side", [None, 40])
def test_decoders_agree(tmp_path: Path, rotation: int, short_side: int | None) -> None:
    path = str(write_video(tmp_path / "video.mp4", width=96, height=64, rotation=rotation))
    info = probe(path)
    size = _resized(info.width, info.height, short_side)
    decord_frames = _decode_with_decord(path, all_frames, size).astype(int)
    pyav_frames = _decode_with_pyav(path, all_frames, size)
    assert decord_frames.shape == pyav_frames.shape
    assert np.abs(decord_frames - pyav_frames).mean() < 1


def test_what_decord_cannot_open_goes_to_pyav(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "video.mkv", codec="libsvtav1"))
    with pytest.raises(Exception, match="cannot find video stream"):
        _decode_with_decord(path, all_frames, (64, 48))
    assert indices_of(decode_clip(path, all_frames, short_side=None)) == list(range(12))


def write_with_packets_without_a_frame(path: Path, num_frames: int) -> Path:
    """MPEG-4 with a picture "not coded" after every other one, as beside packed B frames."""
    not_coded = bytes.fromhex("000001b6 509f")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        contents: list[bytes] = []
        for index in range(num_frames):
            picture = draw_frame(index, width=64, height=48)
            packets = stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
            contents += [bytes(packet) for packet in packets]
            contents += [not_coded] if index % 2 else []
        for number, content in enumerate(contents[:-1]):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = number
            container.mux(packet)
    return path


def test_packets_without_a_frame_are_not_asked_for(tmp_path: Path) -> None:
    path = write_with_packets_without_a_frame(tmp_path / "video.avi", num_frames=24)
    assert probe(str(path)).num_frames == 24
    seen: list[int] = []

    def sample(num_frames: int) -> np.ndarray:
        seen.append(num_frames)
        return all_frames(num_frames)

    frames = decode_clip(str(path), sample, short_side=None)
    assert indices_of(frames) == list(range(24))
    assert seen == [35, 24]


def damage(path: Path, kind: str) -> Path:
    match kind:
        case "missing":
            return path
        case "zero bytes":
            path.touch()
        case "text":
            path.write_text("not a video at all " * 100)
        case "audio":
            write_audio(path)
        case "header cut off":
            truncate(write_video(path, num_frames=40), 0.5)
        case "frames cut off":
            write_video(path, num_frames=40, width=320, height=240, fast_start=True)
            truncate(path, 0.8)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file"),
        ("zero bytes", "zero bytes"),
        ("text", "does not decode: Invalid data"),
        ("audio", "no video stream .only: audio"),
        ("header cut off", "does not decode: Invalid data"),
        ("frames cut off", "does not decode: Invalid data"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, kind: str, reason: str) -> None:
    path = damage(tmp_path / "bad.mp4", kind)
    with pytest.raises(DataError, match=rf"bad\.mp4: .*{reason}"):
        probe(str(path))
    with pytest.raises(DataError, match=rf"bad\.mp4: .*{reason}"):
        decode_clip(str(path), all_frames, short_side=None)
    if kind != "missing":
        with pytest.raises(DataError, match=reason):
            probe(path.read_bytes())


def test_both_decoders_reasons_are_named(tmp_path: Path) -> None:
    path = damage(tmp_path / "bad.mp4", "frames cut off")
    with pytest.raises(DataError, match=r"\(PyAV\); decord: \w+"):
        decode_clip(str(path), all_frames, short_side=None)


@pytest.mark.parametrize("suffix", [".webm", ".mkv", ".avi"])
def test_a_file_cut_short_that_still_opens_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"bad{suffix}", num_frames=60, width=320, height=240)
    truncate(path, 0.6)
    with pytest.raises(DataError, match=r"truncated: ends after 3"):
        probe(str(path))


@pytest.mark.parametrize(("suffix", "keyframe_interval"), [(".mkv", 1), (".webm", 6), (".avi", 1)])
def test_a_file_that_lost_a_few_frames_is_clipped(
    tmp_path: Path, suffix: str, keyframe_interval: int
) -> None:
    path = tmp_path / f"short{suffix}"
    write_video(path, num_frames=60, width=320, height=240, keyframe_interval=keyframe_interval)
    truncate(path, 0.92)
    num_frames = probe(str(path)).num_frames
    assert 54 <= num_frames < 60
    frames = decode_clip(str(path), all_frames, short_side=None)
    assert indices_of(frames) == list(range(num_frames))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_sound_beside_the_pictures_changes_nothing(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"short{suffix}", num_frames=30, audio_s=1.5)
    assert probe(str(path)).num_frames == 30
    path = write_video(tmp_path / f"even{suffix}", num_frames=60, audio_s=6)
    assert probe(str(path)).num_frames == 60
    assert indices_of(decode_clip(str(path), all_frames, short_side=None)) == list(range(60))


def test_a_truncated_avi_does_not_end_the_process(tmp_path: Path) -> None:
    content = write_video(tmp_path / "video.avi", num_frames=45, width=112, height=112).read_bytes()
    for percent in range(40, 100, 5):
        with contextlib.suppress(DataError):
            decode_clip(content[: len(content) * percent // 100], middle, short_side=None)


def test_a_header_that_states_a_billion_frames_does_not_end_the_process(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", num_frames=24)
    content = bytearray(path.read_bytes())
    counts = content.index(b"stts") + 12
    content[counts : counts + 4] = (2**30).to_bytes(4, "big")
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        decode_clip(str(path), middle, short_side=None)


def test_one_frame_is_no_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "still.mp4", num_frames=1)
    with pytest.raises(DataError, match=r"still\.mp4: holds 1 frame\(s\)"):
        probe(str(path))
    assert probe(str(write_video(tmp_path / "two.mp4", num_frames=2))).num_frames == 2


def test_files_are_closed(tmp_path: Path) -> None:
    good = str(write_video(tmp_path / "good.mp4"))
    bad = str(damage(tmp_path / "bad.mp4", "frames cut off"))

    def open_files() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    decode_clip(good, all_frames, short_side=24)
    before = open_files()
    for index in range(200):
        decode_clip(good, middle, short_side=24)
        if index % 20 == 0:
            probe(good)
            with pytest.raises(DataError):
                decode_clip(bad, all_frames, short_side=24)
    assert open_files() == before


@pytest.mark.skipif(not OTHER_VIDEOS.is_dir(), reason="DSTS_TEST_VIDEOS names no folder")
def test_videos_from_elsewhere() -> None:
    refused = []
    for path in sorted(OTHER_VIDEOS.iterdir()):
        if path.suffix == ".md":
            continue
        try:
            info = probe(str(path))
        except DataError as error:
            refused.append(str(error).split(": ")[0])
            continue
        size = _resized(info.width, info.height, 64)
        frames = decode_clip(str(path), middle, short_side=64)
        pyav_frames = _decode_with_pyav(str(path), middle, size)
        assert frames.shape == (8, size[1], size[0], 3)
        assert np.abs(frames.astype(int) - pyav_frames).mean() < 1
    assert refused == [str(path) for path in OTHER_VIDEOS.glob("corrupted.*")]


def _known(path: str) -> Display:
    info = probe(path)
    return Display(info.width, info.height, info.rotation)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mkv"])
@pytest.mark.parametrize("short_side", [None, 40])
def test_a_known_display_changes_no_pixel(
    tmp_path: Path, suffix: str, short_side: int | None
) -> None:
    path = str(write_video(tmp_path / f"video{suffix}", width=96, height=64))
    expected = decode_clip(path, all_frames, short_side=short_side)
    for source in (path, Path(path).read_bytes()):
        frames = decode_clip(source, all_frames, short_side=short_side, display=_known(path))
        assert np.array_equal(frames, expected)


@pytest.mark.parametrize("content", [None, b"", b"no video at all"])
def test_a_known_display_hides_no_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "video.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as expected:
        decode_clip(str(path), all_frames, short_side=None)
    with pytest.raises(DataError) as found:
        decode_clip(str(path), all_frames, short_side=None, display=Display(64, 48, 0))
    assert str(expected.value).split(" (PyAV)")[0] in str(found.value)


def test_a_known_display_spares_the_second_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_video(tmp_path / "video.mp4"))
    known = _known(path)
    monkeypatch.setattr(av, "open", None)
    assert len(decode_clip(path, all_frames, short_side=None, display=known)) > 1
