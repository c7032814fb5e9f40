import pytest

from dsts_ray.config.load import load_config
from dsts_ray.config.rules import problems
from dsts_ray.config.schema import Config, EvaluationConfig
from dsts_ray.errors import ConfigError

BASE = (
    "dsts.dispatch=dense",
    "model.backbone.tpn.width=16",
    "train.num_epochs=8",
    "udl.held_out_ratio=1",
)
"""What the rules below speak of, whatever the demo preset says."""


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            "evaluation.protocol=three_crops",
            "evaluation.protocol = 'three_crops' must be num_clips x num_crops, each 1 to 999: "
            "1x1, 1x3, 2x3, 10x3 or another such pair",
        ),
        (
            "evaluation.crop_size=256 evaluation.short_side=224",
            "evaluation.crop_size = 256 exceeds evaluation.short_side = 224: use a crop_size of at "
            "most 224, or a larger short_side (0 takes the data's)",
        ),
        (
            "train.batch_size=1 scaling.num_workers=2",
            "train.batch_size = 1 leaves some of scaling.num_workers = 2 without a clip: use a "
            "batch_size of at least 2",
        ),
        (
            "train.batch_size=3 scaling.num_workers=2 scaling.max_workers=4 "
            "scaling.cpus_per_worker=1",
            "train.batch_size = 3 leaves some of scaling.max_workers = 4 without a clip: use a "
            "batch_size of at least 4",
        ),
        (
            "scaling.num_workers=2 scaling.min_workers=3 scaling.max_workers=4",
            "scaling.num_workers = 2 is not between scaling.min_workers = 3 and "
            "scaling.max_workers = 4: lower the first or raise the last",
        ),
        (
            "scaling.num_workers=2 scaling.max_workers=3 scaling.cpus_per_worker=0.2",
            "scaling.cpus_per_worker = 0.2 with scaling.min_workers = 2 and scaling.max_workers = "
            "3: Ray counts how many workers a node holds by dividing, which rounding breaks for "
            "such a fraction; use a whole number, or 0.5, 0.25, 0.125",
        ),
        (
            "data.crop_size=224 data.short_side=160",
            "data.crop_size = 224 exceeds data.short_side = 160: use a crop_size of at most 160, "
            "or a larger short_side",
        ),
        (
            "data.demo.min_frames=40 data.demo.max_frames=20",
            "data.demo.min_frames = 40 exceeds data.demo.max_frames = 20: lower the first or raise "
            "the second",
        ),
        (
            "data.decoder_resource=GPU",
            "data.decoder_resource = GPU is counted by Ray itself: name a custom resource, as one "
            "started with ray start --resources='{\"decode\": 8}'",
        ),
        (
            "data.crop_scale=[1.0, 0.5]",
            "data.crop_scale = [1.0, 0.5] must ascend: use [0.5, 1.0]",
        ),
        (
            "data.crop_ratio=[2, 1]",
            "data.crop_ratio = [2.0, 1.0] must ascend: use [1.0, 2.0]",
        ),
        ("optim.betas=[0.9, 0.5]", "optim.betas = [0.9, 0.5] must ascend: use [0.5, 0.9]"),
        (
            "data.frame_stride=4",
            "data.frame_stride = 4 is for data.sampling=dense; segments takes its frames from the "
            "whole video: use 1, or dense",
        ),
        (
            "data.crop_sides=[0.75, 1.0]",
            "data.crop_sides = [0.75, 1.0] must fall: use [1.0, 0.75]",
        ),
        (
            "augment.flip_labels=[[0, 1], [2, 1]]",
            "augment.flip_labels names class 1 more than once: a mirrored clip changes between the "
            "two classes of one pair",
        ),
        (
            "augment.color_jitter=[0, 0, 0, 0.6]",
            "augment.color_jitter = [0.0, 0.0, 0.0, 0.6] turns the hue by more than half a circle: "
            "use at most 0.5 as the fourth",
        ),
        (
            "optim.warmup_epochs=2 train.num_epochs=2",
            "optim.warmup_epochs = 2 takes all of train.num_epochs = 2: use fewer warmup_epochs, "
            "or more num_epochs",
        ),
        (
            "optim.schedule=step optim.milestones=[5, 3]",
            "optim.milestones = [5.0, 3.0] must ascend: use [3.0, 5.0]",
        ),
        (
            "optim.schedule=step optim.milestones=[]",
            "optim.milestones is empty with optim.schedule = step: give one, as in [75, 125]",
        ),
        (
            "optim.schedule=step optim.milestones=[75, 125]",
            "optim.milestones = [75.0, 125.0] are not all below train.num_epochs = 8: use earlier "
            "ones, or more num_epochs",
        ),
        (
            "optim.schedule=step optim.milestones=[5] optim.warmup_epochs=6.5",
            "optim.warmup_epochs = 6.5 ends after the first of optim.milestones = [5.0]: use at "
            "most 5",
        ),
        (
            "model.backbone.tpn.neck_groups=3",
            "model.backbone.tpn.neck_channels = 128 is not divisible by "
            "model.backbone.tpn.neck_groups = 3: use a divisor of 128 for "
            "model.backbone.tpn.neck_groups",
        ),
        (
            "dsts.groups=3",
            "model.backbone.tpn.neck_channels = 128 is not divisible by dsts.groups = 3: use a "
            "divisor of 128 for dsts.groups",
        ),
        (
            "dsts.fuse_groups=256",
            "model.backbone.tpn.neck_channels = 128 is not divisible by dsts.fuse_groups = 256: "
            "use a divisor of 128 for dsts.fuse_groups",
        ),
        (
            "dsts.enabled=false model.backbone.tpn.neck_groups=64 model.backbone.tpn.width=5",
            "32 * model.backbone.tpn.width = 160 is not divisible by "
            "model.backbone.tpn.neck_groups = 64: use a divisor of 160 for "
            "model.backbone.tpn.neck_groups",
        ),
        (
            "dsts.insertion=res4 dsts.groups=512 model.backbone.tpn.geometry=stock",
            "16 * model.backbone.tpn.width = 256 is not divisible by dsts.groups = 512: use a "
            "divisor of 256 for dsts.groups",
        ),
        (
            "model.backbone.name=swin3d dsts.enabled=false model.backbone.swin3d.heads=[4,3,8,8]",
            "2 * model.backbone.swin3d.channels = 256 is not divisible by "
            "model.backbone.swin3d.heads[1] = 3: use a divisor of 256 for "
            "model.backbone.swin3d.heads[1]",
        ),
        (
            "model.backbone.name=swin3d dsts.insertion=norm dsts.groups=7",
            "8 * model.backbone.swin3d.channels = 1024 is not divisible by dsts.groups = 7: use a "
            "divisor of 1024 for dsts.groups",
        ),
        (
            "model.backbone.name=swin3d",
            "dsts.insertion = neck with model.backbone.name = swin3d: use dsts.insertion = norm, "
            "or another backbone",
        ),
        (
            "dsts.insertion=norm",
            "dsts.insertion = norm with model.backbone.name = tpn: use dsts.insertion = neck or "
            "res4, or another backbone",
        ),
        (
            "model.backbone.tpn.geometry=stock",
            "dsts.insertion = neck with model.backbone.tpn.geometry = stock, whose output has one "
            "frame: use geometry = stride1, or dsts.insertion = res4",
        ),
        (
            "data.crop_size=31",
            "data.crop_size = 31 is below the stride of model.backbone.name = tpn: use a crop_size "
            "of at least 32",
        ),
        (
            "model.backbone.name=swin3d dsts.insertion=norm evaluation.crop_size=48",
            "evaluation.crop_size = 48 is not divisible by 32, the stride of model.backbone.name "
            "= swin3d: use a multiple of 32, as 224",
        ),
        (
            "model.backbone.name=swin3d dsts.insertion=norm data.crop_size=63",
            "data.crop_size = 63 is not divisible by 32, the stride of model.backbone.name = "
            "swin3d: use a multiple of 32, as 224",
        ),
        (
            "model.backbone.name=swin3d dsts.insertion=norm data.num_frames=7",
            "data.num_frames = 7 is not divisible by 2, the frames of a patch of "
            "model.backbone.name = swin3d: use an even number",
        ),
        (
            "dsts.width=20 dsts.groups=4",
            "dsts.width = 20 is not divisible by dsts.fuse_groups = 8: use a multiple of 8 for "
            "dsts.width, or 0 for the features' channels",
        ),
        (
            "dsts.synapse=average dsts.utilization_loss_weight=0.1",
            "dsts.utilization_loss_weight = 0.1 with dsts.synapse = average, which selects no "
            "neurons; use dsts.utilization_loss_weight=0",
        ),
        (
            "dsts.synapse=average dsts.specialization=fixed",
            "udl.enabled with dsts.synapse = average and dsts.specialization = fixed: without "
            "scoring kernels and gates no upstream parameter remains for Eq. 10; use "
            "udl.enabled=false",
        ),
        (
            "udl.held_out=previous_features udl.held_out_ratio=0.5",
            "udl.held_out_ratio = 0.5 with udl.held_out = previous_features, which costs no "
            "backbone pass to save; use udl.held_out_ratio=1.0",
        ),
        (
            "udl.held_out_ratio=0.2 train.batch_size=8 train.micro_batch_size=2",
            "udl.held_out_ratio = 0.2 leaves less than a held-out clip for each of the 4 "
            "micro-batches of train.batch_size = 8: use at least 0.5",
        ),
        (
            "data.manifest=",
            "data.manifest is empty: name the Parquet file written by jobs/prepare_data.py index, "
            "or demo",
        ),
        (
            "name=../evil",
            "name = '../evil' becomes a folder's name: use up to 100 letters, digits, dots, dashes "
            "and underscores, beginning with a letter or digit",
        ),
        (
            "tracking.model_name=a/b",
            "tracking.model_name = 'a/b' must not contain / or :",
        ),
        *(
            (
                f"engine.zero_stage=3{without}",
                "engine.zero_stage = 3 partitions the parameters, which Eq. 9 and the checkpoints "
                "must read whole; use zero_stage 0, 1 or 2",
            )
            for without in ("", " udl.enabled=false", " dsts.enabled=false")
        ),
    ],
    ids=lambda text: text.split("=")[0],
)
def test_broken_rule_names_keys_values_and_a_way_out(overrides: str, line: str) -> None:
    pairs = [*BASE, "model.backbone.tpn.neck_channels=128", *overrides.replace(", ", ",").split()]
    with pytest.raises(ConfigError) as caught:
        load_config(preset="demo", overrides=pairs)
    assert str(caught.value).splitlines()[1:] == [f"  {line}"]


@pytest.mark.parametrize("name", ["..", ".hidden", "-x", "a b", "a\n", "x" * 101])
def test_names_that_make_no_safe_folder_are_refused(name: str) -> None:
    assert len(problems(Config(name=name))) == len(problems(Config())) + 1


@pytest.mark.parametrize(
    "overrides",
    [
        "dsts.num_neurons=1",
        "dsts.synapse=average",
        "dsts.synapse=average dsts.specialization=conv3d udl.enabled=false",
        "dsts.specialization=fixed",
        "dsts.width=32",
        "udl.held_out_ratio=0.25",
        "dsts.enabled=false dsts.groups=3",
        "dsts.enabled=false model.backbone.tpn.geometry=stock",
        "dsts.enabled=false model.backbone.name=swin3d",
        "dsts.insertion=res4 model.backbone.tpn.geometry=stock",
        "dsts.insertion=norm model.backbone.name=swin3d model.backbone.tpn.neck_groups=7",
        "engine.zero_stage=2",
        "name=a.b-c_1",
        "data.crop_scale=[0.5,0.5]",
        "optim.milestones=[]",
        "optim.schedule=step optim.milestones=[2.5] optim.warmup_epochs=2.5",
        "augment.flip_labels=[[0,1],[2,3]]",
    ],
)
def test_sound_combinations_pass(overrides: str) -> None:
    assert problems(load_config(preset="demo", overrides=[*BASE, *overrides.split()])) == []


def test_all_broken_rules_come_at_once() -> None:
    with pytest.raises(ConfigError, match="3 problems"):
        load_config(
            preset="demo",
            overrides=[
                *BASE,
                *("train.batch_size=1", "scaling.num_workers=2", "name=..", "dsts.groups=7"),
            ],
        )


@pytest.mark.parametrize("protocol", ["1x1", "1x3", "2x3", "10x3", "4x5", "999x1"])
def test_protocols_are_clips_times_crops(protocol: str) -> None:
    assert load_config(overrides=["data.manifest=x", f"evaluation.protocol={protocol}"])


@pytest.mark.parametrize("protocol", ["3", "0x3", "2x", "2X3", "2x3x1", "2x3\n", "1000x1", "-1x3"])
def test_other_protocols_are_refused(protocol: str) -> None:
    evaluation = EvaluationConfig(protocol=protocol)
    assert len(problems(Config(evaluation=evaluation))) == len(problems(Config())) + 1
