from pathlib import Path

from dsts_ray.config.load import load_config
from dsts_ray.data.index import index_dataset
from dsts_ray.data.manifest import Manifest
from dsts_ray.launch.register import input_example
from tests.support.videos import write_video


def test_the_input_example_is_the_first_video_that_can_be_read(tmp_path: Path) -> None:
    videos = [write_video(tmp_path / f"{name}.mp4", width=64, height=64) for name in "abc"]
    (tmp_path / "list.csv").write_text("".join(f"{path.name},dive,test\n" for path in videos))
    out = tmp_path / "manifest.parquet"
    index_dataset(format="csv", root=tmp_path / "list.csv", out=out, num_processes=1)
    config = load_config(preset="demo")
    content = videos[2].read_bytes()
    videos[0].unlink()
    videos[1].write_bytes(b"")
    assert input_example(config, Manifest.read(out)) == content
    videos[2].unlink()
    assert input_example(config, Manifest.read(out)) == b""
