from dsts_ray.train.partition import partition_classifier, upstream_parameters
from tests.support.tiny import tiny_config, tiny_model

UPSTREAM = {
    f"dsts.layers.{i}.{name}"
    for i in range(2)
    for name in ("synapse.scoring.kernels", "gates.gates")
}
OPERATORS = {
    f"dsts.layers.{i}.neurons.operators.{name}"
    for i in range(2)
    for name in ("spatial", "temporal")
}


def test_upstream_is_scoring_kernels_and_gates_and_operators_are_the_papers_d() -> None:
    model = tiny_model(tiny_config())
    partition = partition_classifier(model.classifier, "operators")
    assert set(partition.upstream) == UPSTREAM
    assert set(partition.simulated) == OPERATORS
    assert set(upstream_parameters(model)) == {f"classifier.{name}" for name in UPSTREAM}


def test_module_coverage_is_everything_else_behind_the_backbone() -> None:
    classifier = tiny_model(tiny_config()).classifier
    partition = partition_classifier(classifier, "module")
    assert set(partition.upstream) == UPSTREAM
    everything = {name for name, _ in classifier.named_parameters()}
    assert set(partition.simulated) == everything - UPSTREAM


def test_a_plain_backbone_has_no_upstream() -> None:
    model = tiny_model(tiny_config("dsts.enabled=false", "udl.enabled=false"))
    assert upstream_parameters(model) == {}
