"""The files of an explanation, all of them or none."""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from dsts_ray.errors import ConfigError
from dsts_ray.explain.drawing import Explanation
from dsts_ray.explain.page import to_page
from dsts_ray.explain.pictures import draw_png, draw_strips

PAGE, VALUES = "explanation.html", "explanation.json"
_CLIPS = re.compile(r"clips_layer\d+_neuron\d+\.png")


def check_folder(folder: Path) -> None:
    """Refuse to replace a folder that is more than an explanation.

    Raises:
        ConfigError: There are other files, it is no folder, or it is the working directory.
    """
    if folder == Path.cwd():
        raise ConfigError(f"{folder} is the working directory; name another folder by --out")
    if folder.exists() and not (folder.is_dir() and _is_ours(folder)):
        raise ConfigError(
            f"{folder} exists and is no explanation, or holds other files beside one; choose "
            "another folder by --out"
        )


def write_explanation(explanation: Explanation, strips: Sequence[bytes], folder: Path) -> Path:
    """Write page, values, figures and key frames into a folder, replacing an earlier explanation.

    Returns:
        The page.

    Raises:
        ConfigError: The folder holds something else.
    """
    check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".explanation") as temporary:
        written = Path(temporary) / "written"
        written.mkdir()
        values = json.dumps(asdict(explanation), indent=2, allow_nan=False)
        (written / VALUES).write_text(values, encoding="utf-8")
        (written / PAGE).write_text(to_page(explanation, strips), encoding="utf-8")
        for figure in explanation.figures:
            (written / f"{figure.name}.png").write_bytes(draw_png(figure))
        for name, content in _pictures_of_clips(explanation, strips):
            (written / name).write_bytes(content)
        if folder.exists():
            folder.rename(Path(temporary) / "replaced")
        written.rename(folder)
    return folder / PAGE


def _pictures_of_clips(
    explanation: Explanation, strips: Sequence[bytes]
) -> Iterator[tuple[str, bytes]]:
    """The clips of every neuron: names and contents of PNG files."""
    for layer, of_neurons in enumerate(explanation.clips_of_neurons):
        for neuron, places in enumerate(of_neurons):
            if places:
                clips = [explanation.clips[place] for place in places]
                pictures = [strips[place] for place in places]
                drawn = draw_strips(clips, pictures, classes=explanation.classes)
                yield f"clips_layer{layer}_neuron{neuron}.png", drawn


def _is_ours(folder: Path) -> bool:
    """Nothing lies there but the files of an explanation."""
    found = {path.name for path in folder.iterdir()}
    if not found:
        return True
    try:
        values = json.loads((folder / VALUES).read_text(encoding="utf-8"))
        figures = {f"{figure['name']}.png" for figure in values["figures"]}
    except (OSError, ValueError, LookupError, TypeError):  # no such file, or not one of ours
        return False
    clips = {name for name in found if _CLIPS.fullmatch(name)}
    return found - clips - figures <= {PAGE, VALUES}
