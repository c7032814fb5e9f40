import pytest
import torch
from torch import Tensor

from dsts_ray.models.backbones.swin3d import Block, VideoSwin
from dsts_ray.models.draws import Draws
from tests.support.swin_reference import video_swin_features

NUM_SAMPLES = 400


def small(window: tuple[int, int, int], **options: float | bool) -> VideoSwin:
    settings = {"stochastic_depth": 0.0, "activation_checkpointing": False, **options}
    return VideoSwin(channels=8, depths=(2, 2), heads=(2, 4), window=window, **settings)  # pyright: ignore


def draws(role: str = "train", step: int = 0) -> Draws:
    ids = torch.arange(NUM_SAMPLES)
    return Draws(0, step, "train" if role == "train" else "held_out", ids, ids)


def blocks(model: VideoSwin) -> list[Block]:
    return [module for module in model.modules() if isinstance(module, Block)]


@pytest.mark.parametrize(
    ("window", "num_frames", "size"),
    [
        ((16, 7, 7), 32, (28, 56)),  # whole windows, shifted in width
        ((16, 7, 7), 8, (56, 28)),  # cut in time
        ((8, 7, 7), 32, (28, 28)),  # shifted in time
        ((2, 4, 4), 6, (40, 24)),  # padded and shifted in all directions
        ((16, 7, 7), 8, (16, 20)),  # cut in all directions
    ],
)
def test_features_are_those_of_explicit_attention(
    window: tuple[int, int, int], num_frames: int, size: tuple[int, int]
) -> None:
    model = small(window).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("relative_position_bias_table"):
                parameter.normal_()
    clips = torch.randn(1, 3, num_frames, *size, dtype=torch.float64)
    expected = video_swin_features(
        model.state_dict(), clips, depths=(2, 2), heads=(2, 4), window=window
    )
    with torch.no_grad():
        torch.testing.assert_close(model(clips).features, expected, rtol=1e-9, atol=1e-9)


def test_drop_probabilities_rise_linearly_over_all_blocks() -> None:
    model = small((2, 4, 4), stochastic_depth=0.6)
    assert [b.drop_probability for b in blocks(model)] == pytest.approx([0.0, 0.2, 0.4, 0.6])
    assert len({b.name for b in blocks(model)}) == 4


def one_block_outputs(x: Tensor, named: Draws | None, *, training: bool = True) -> Tensor:
    torch.manual_seed(0)
    block = blocks(small((2, 4, 4), stochastic_depth=0.6))[-1].train(training)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.3)
        return block(x.expand(NUM_SAMPLES, *x.shape), named)


def test_each_branch_of_each_sample_is_dropped_or_scaled() -> None:
    """Equal samples end up in four groups: neither, either or both branches dropped."""
    x = torch.randn(2, 4, 4, 16)
    outputs = one_block_outputs(x, draws())
    groups, counts = outputs.flatten(1).unique(dim=0, return_counts=True)
    assert len(groups) == 4
    dropped = (outputs == x).flatten(1).all(1).double().mean()
    assert float(dropped) == pytest.approx(0.36, abs=0.08)
    assert float(counts.max() / NUM_SAMPLES) < 0.5


def test_paths_are_named_by_step_role_and_sample_and_exist_in_training_alone() -> None:
    x = torch.randn(2, 4, 4, 16)
    whole = one_block_outputs(x, None)
    assert torch.equal(one_block_outputs(x, draws(), training=False), whole)
    first = one_block_outputs(x, draws())
    assert torch.equal(one_block_outputs(x, draws()), first)
    for other in (draws("held_out"), draws(step=1)):
        assert not torch.equal(one_block_outputs(x, other), first)


def test_the_state_has_torchvisions_names_without_the_computed_index_and_the_head() -> None:
    from torchvision.models.video import swin3d_b

    with torch.device("meta"):
        own = VideoSwin(
            channels=128,
            depths=(2, 2, 18, 2),
            heads=(4, 8, 16, 32),
            window=(8, 7, 7),
            stochastic_depth=0.1,
            activation_checkpointing=False,
        ).state_dict()
        published = swin3d_b().state_dict()
    computed = {name for name in published if name.endswith("relative_position_index")}
    assert own.keys() == published.keys() - computed - {"head.weight", "head.bias"}
    assert all(value.shape == published[name].shape for name, value in own.items())
