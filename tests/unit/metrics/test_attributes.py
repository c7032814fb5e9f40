import pytest
import torch

from dsts_ray.metrics.attributes import attribute_metrics, class_attributes
from dsts_ray.metrics.recognition import REFUSED

CLASSES = (
    "Back+15som+05Twis+FREE",
    "Back+15som+NoTwis+PIKE",
    "Forward+25som+NoTwis+PIKE",
    "Forward+Dive+NoTwis+STR",
)


def test_each_attribute_is_scored_by_itself() -> None:
    predicted = torch.tensor([1, 1, 3, 0, REFUSED])
    labels = torch.tensor([1, 0, 2, 3, 3])
    metrics = attribute_metrics(predicted, labels, CLASSES)
    expected = {"takeoff": 3, "somersaults": 2, "twists": 2, "position": 1}
    assert metrics == {
        f"{name}_accuracy": pytest.approx(right / 5) for name, right in expected.items()
    }


@pytest.mark.parametrize("names", [("a", "b"), ("a+b+c+d", "a+b+c+e"), ("Back+1+2+FREE", "other")])
def test_other_class_names_have_no_attributes(names: tuple[str, ...]) -> None:
    assert attribute_metrics(torch.tensor([0]), torch.tensor([0]), names) == {}
    assert class_attributes(names) == {}


def test_values_of_the_attributes_by_class() -> None:
    attributes = class_attributes(CLASSES)
    assert attributes["takeoff"] == ("Back", "Back", "Forward", "Forward")
    assert list(attributes) == ["takeoff", "somersaults", "twists", "position"]
