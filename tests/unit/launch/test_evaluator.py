from pathlib import Path

from dsts_ray.config.load import changed_config, load_config
from dsts_ray.launch.evaluator import manifest_to_evaluate
from dsts_ray.launch.register import MANIFEST_TAG


def test_a_version_is_evaluated_on_the_manifest_its_tag_names(tmp_path: Path) -> None:
    """The demo data set is found again where another default storage folder is in force."""
    trained = load_config(preset="demo", overrides=[f"storage.path={tmp_path}"])
    known = tmp_path / "elsewhere" / "manifest.parquet"
    tags = {MANIFEST_TAG: str(known)}
    other = tmp_path / "other.parquet"
    changed = changed_config(trained, [f"data.manifest={other}"], ("data.",))
    known.parent.mkdir()
    known.touch()
    assert manifest_to_evaluate(trained, trained, tags) == known
    assert manifest_to_evaluate(changed, trained, tags) == other
    assert manifest_to_evaluate(changed, changed, {}) == other
