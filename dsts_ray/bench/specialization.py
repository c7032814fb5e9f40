"""Whether the neurons of a trained model have specialized, measured on a split.

Three questions: do all neurons work; does the activated neuron tell more about the class than with
the same backbone and untrained scoring kernels and gates; is another neuron worse?
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import comb
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from dsts_ray.build import build_model, build_view_spec, load_model
from dsts_ray.config.schema import Config
from dsts_ray.data.batch import normalize
from dsts_ray.data.clip import ViewSpec
from dsts_ray.data.manifest import Manifest
from dsts_ray.errors import ConfigError
from dsts_ray.metrics.specialization import specialization_metrics
from dsts_ray.models.backbones.output import BackboneOutput
from dsts_ray.models.dsts.gates import Gates
from dsts_ray.models.dsts.module import DSTSLayer, DSTSModule
from dsts_ray.models.dsts.synapse import Selection, Synapse
from dsts_ray.models.recognizer import Classifier, Recognizer


class Specialization(NamedTuple):
    """What was found; a list has one figure per layer.

    Attributes:
        model: Folder.
        num_videos: Of the split.
        utilization: Entropy of the activations over log N.
        information: Mutual information of activated neuron and class, nats.
        information_untrained: The same with untrained scoring kernels and gates.
        top1: Of the model.
        top1_rerouted: With every sample sent to a random other neuron in every layer.
        p_value: One-sided exact McNemar test of the last two.
    """

    model: str
    num_videos: int
    utilization: list[float]
    information: list[float]
    information_untrained: list[float]
    top1: float
    top1_rerouted: float
    p_value: float


def specialization(folder: Path, manifest: Path, split: str) -> Specialization:
    """Measure a model folder on a split.

    Raises:
        ConfigError: The model has no DSTS module or no selections.
    """
    config, model, _ = load_model(folder)
    dsts = model.classifier.dsts
    if dsts is None or not dsts.num_selections or dsts.num_neurons < 2:
        raise ConfigError(f"{folder} has no neurons to choose from; use a model with dsts.enabled")
    spec = replace(build_view_spec(config), num_clips=1, num_crops=1)
    features, labels = _features(model, spec, manifest, split)
    right, chosen = _answers(model.classifier, features, labels)
    with _rerouted(dsts):
        right_rerouted, _ = _answers(model.classifier, features, labels)
    measured = specialization_metrics(chosen, labels, dsts.num_neurons)
    _forget_upstream(config, model)
    _, chosen_untrained = _answers(model.classifier, features, labels)
    untrained = specialization_metrics(chosen_untrained, labels, dsts.num_neurons)
    layers = range(chosen.shape[1])
    return Specialization(
        str(folder),
        len(labels),
        [measured[f"layer{layer}/utilization"] for layer in layers],
        [measured[f"layer{layer}/mutual_information"] for layer in layers],
        [untrained[f"layer{layer}/mutual_information"] for layer in layers],
        float(right.double().mean()),
        float(right_rerouted.double().mean()),
        _mcnemar(int((right & ~right_rerouted).sum()), int((right_rerouted & ~right).sum())),
    )


@torch.no_grad()
def _features(
    model: Recognizer, spec: ViewSpec, manifest: Path, split: str
) -> tuple[BackboneOutput, Tensor]:
    """Backbone features of a whole split, and its labels."""
    rows = Manifest.read(manifest).split(split).table.to_pylist()
    outputs = []
    for first in range(0, len(rows), 16):
        clips = np.concatenate([spec.views(row) for row in rows[first : first + 16]])
        frames = normalize(torch.from_numpy(clips))
        outputs.append(model.backbone(rearrange(frames, "b t h w c -> b c t h w").contiguous()))
    pooled = None if outputs[0].pooled is None else torch.cat([o.pooled for o in outputs])
    features = BackboneOutput(torch.cat([output.features for output in outputs]), pooled)
    return features, torch.tensor([row["label"] for row in rows])


@torch.no_grad()
def _answers(
    classifier: Classifier, features: BackboneOutput, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Which samples are right, and their neurons, (samples, layers)."""
    recognition = classifier(features, None)
    chosen = torch.stack([selection.chosen for selection in recognition.selections], 1)
    return recognition.logits.argmax(1) == labels, chosen


@contextmanager
def _rerouted(dsts: DSTSModule) -> Iterator[None]:
    """Send every sample to a random other neuron in every layer."""
    hooks = [
        synapse.register_forward_hook(partial(_other_neuron, seed=index))
        for index, (synapse, _) in enumerate(_upstream(dsts))
    ]
    yield
    for hook in hooks:
        hook.remove()


def _other_neuron(
    module: Synapse, inputs: tuple[object, ...], selection: Selection, *, seed: int
) -> Selection:
    del module, inputs
    num_neurons = selection.weights.shape[1]
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(1, num_neurons, selection.chosen.shape, generator=generator)
    chosen = (selection.chosen + steps) % num_neurons
    return Selection(chosen, F.one_hot(chosen, num_neurons).float(), selection.impulses)


@torch.no_grad()
def _forget_upstream(config: Config, model: Recognizer) -> None:
    """Set scoring kernels and gates back to their start; impulses are standardized on the split."""
    fresh = build_model(config, model.classifier.fc.out_features).classifier.dsts
    own = model.classifier.dsts
    assert own is not None
    assert fresh is not None
    for (synapse, gates), (fresh_synapse, fresh_gates) in zip(
        _upstream(own), _upstream(fresh), strict=True
    ):
        synapse.scoring.load_state_dict(fresh_synapse.scoring.state_dict())
        if gates is not None and fresh_gates is not None:
            gates.load_state_dict(fresh_gates.state_dict())
        synapse.train()


def _upstream(dsts: DSTSModule) -> Iterator[tuple[Synapse, Gates | None]]:
    for layer in dsts.layers:
        assert isinstance(layer, DSTSLayer)
        assert layer.synapse is not None
        yield layer.synapse, layer.gates


def _mcnemar(only_one: int, only_other: int) -> float:
    """Chance of at least ``only_one`` of the discordant pairs under even odds."""
    discordant = only_one + only_other
    ways = sum(comb(discordant, count) for count in range(only_one, discordant + 1))
    return ways / 2**discordant
