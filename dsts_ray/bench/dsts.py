"""Benches of the DSTS module alone: the scoring convolution, and the dispatch at test time."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dsts_ray.bench.compare import Way, compare
from dsts_ray.bench.networks import Setting
from dsts_ray.bench.rows import Row
from dsts_ray.build import build_model
from dsts_ray.models.dsts.dispatch import Dispatch
from dsts_ray.models.dsts.module import DSTSLayer, DSTSModule
from dsts_ray.models.dsts.scoring import ScoringKernels

_CHANNELS, _NUM_NEURONS = 1024, 10


def scoring(setting: Setting) -> list[Row]:
    """Eq. 1-2 as a convolution summed over its output, and collapsed to a dot product."""
    side = setting.crop_size // 16
    features = torch.randn(setting.batch_size, _CHANNELS, 8, side, side, device=setting.device)
    literal = ScoringKernels(
        channels=_CHANNELS, num_neurons=_NUM_NEURONS, kernel="1x1x1", rows="literal"
    ).to(setting.device)
    collapsed = ScoringKernels(
        channels=_CHANNELS, num_neurons=_NUM_NEURONS, kernel="1x1x1", rows="collapsed"
    ).to(setting.device)
    with torch.no_grad():
        collapsed.kernels.copy_(literal.kernels.sum(1))
    kernels = literal.kernels.detach().unsqueeze(3)  # neurons, outputs, inputs, 1, 1, 1

    def convolve() -> list[Tensor]:
        with torch.no_grad():
            impulses = [F.conv3d(features, kernel).sum((1, 2, 3, 4)) for kernel in kernels]
        return [torch.stack(impulses, 1)]

    def collapse() -> list[Tensor]:
        with torch.no_grad():
            return [collapsed(features)]

    comparison = compare(
        Way("scoring convolution, Eq. 1-2 to the letter", convolve),
        Way("collapsed", collapse),
        device=setting.device,
        repeats=setting.repeats,
    )
    ratio = comparison.time_ratio
    error = comparison.max_rel_error
    assert error is not None
    return [
        Row(
            "scoring",
            "1x1x1",
            setting.device_name,
            f"{setting.batch_size}x{_CHANNELS}x8x{side}x{side}, N={_NUM_NEURONS}",
            comparison,
            ratio,
            "at least 40, output equal to 1e-5",
            ratio >= 40 and error <= 1e-5,
        )
    ]


def dispatch(setting: Setting) -> list[Row]:
    """The module at test time computing every neuron, and the chosen ones alone."""
    config = setting.config()
    model = build_model(config, 2)
    module = model.classifier.dsts
    assert module is not None
    module = module.to(setting.device).eval()
    side, frames = setting.crop_size // 16, config.data.num_frames
    channels = model.backbone.feature_channels
    features = torch.randn(setting.batch_size, channels, frames, side, side, device=setting.device)
    comparison = compare(
        Way("dense", lambda: [_forward(module, features, "dense")]),
        Way("sparse", lambda: [_forward(module, features, "sparse")]),
        device=setting.device,
        repeats=setting.repeats,
    )
    ratio = comparison.time_ratio
    return [
        Row(
            "dispatch",
            "test time",
            setting.device_name,
            f"{setting.batch_size}x{channels}x{frames}x{side}x{side}, N={config.dsts.num_neurons}, "
            f"L={config.dsts.num_layers}",
            comparison,
            ratio,
            "at least 4",
            ratio >= 4,
        )
    ]


def _forward(module: DSTSModule, features: Tensor, dispatch: Dispatch) -> Tensor:
    for layer in module.layers:
        assert isinstance(layer, DSTSLayer)
        layer.neurons.test_dispatch = dispatch
    with torch.no_grad():
        return module(features, None).features
