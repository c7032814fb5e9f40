import torch

from dsts_ray.models.backbones.resnet_tsm import ResNetTSM, shift_in_time


def test_an_eighth_of_the_channels_moves_each_way() -> None:
    features = torch.arange(2 * 3 * 8).float().view(6, 8, 1, 1) + 1
    clips = features.view(2, 3, 8)
    shifted = shift_in_time(features, num_frames=3, shift_div=8).view(2, 3, 8)
    for clip in range(2):
        for frame in range(3):
            following = clips[clip, frame + 1, 0] if frame < 2 else 0
            preceding = clips[clip, frame - 1, 1] if frame > 0 else 0
            assert shifted[clip, frame, 0] == following
            assert shifted[clip, frame, 1] == preceding
            assert torch.equal(shifted[clip, frame, 2:], clips[clip, frame, 2:])


def test_without_shifts_frames_are_independent_and_strides_are_16() -> None:
    network = ResNetTSM(depths=(1, 1, 1, 1), width=4, shift_div=10**6, last_stride=1).eval()
    clips = torch.randn(1, 3, 3, 32, 32)
    res4, res5 = network(clips)
    assert (res4.shape, res5.shape) == ((1, 64, 3, 2, 2), (1, 128, 3, 2, 2))
    alone = torch.cat([network(clips[:, :, t : t + 1])[1] for t in range(3)], dim=2)
    torch.testing.assert_close(res5, alone)


def test_full_size_has_the_names_and_the_size_of_torchvisions_resnet50() -> None:
    from torchvision.models import resnet50

    with torch.device("meta"):
        own, published = ResNetTSM().state_dict(), resnet50().state_dict()
    assert own.keys() == {name for name in published if not name.startswith("fc.")}
    assert all(value.shape == published[name].shape for name, value in own.items())
