"""The configuration of a run as plain frozen dataclasses.

Every field has its default here and nowhere else; a preset states what differs, a recipe's preset
all of its numbers. Allowed ranges stand in the annotations (checked by ``load.py``), rules between
fields in ``rules.py``.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, MinLen

Ratio = Annotated[float, Interval(ge=0.0, le=1.0)]
PositiveRatio = Annotated[float, Interval(gt=0.0, le=1.0)]
RatioBelowOne = Annotated[float, Interval(ge=0.0, lt=1.0)]
PositiveInt = Annotated[int, Ge(1)]
PositiveFloat = Annotated[float, Gt(0.0)]
NonNegativeFloat = Annotated[float, Ge(0.0)]
Label = Annotated[int, Ge(0)]


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """The procedural data set that ``data.manifest=demo`` makes."""

    layout: Literal["diving48", "ssv2"] = "diving48"
    """On-disk layout and task."""
    num_classes: Annotated[int, Interval(ge=2, le=48)] = 16
    num_train_clips: PositiveInt = 640
    num_test_clips: PositiveInt = 320
    size: Annotated[int, Interval(ge=64, le=720)] = 112
    """Frame height in pixels, even."""
    min_frames: Annotated[int, Ge(8)] = 32
    max_frames: Annotated[int, Ge(8)] = 64
    seed: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which videos, and how a video becomes a clip."""

    manifest: str = ""
    """Parquet file written by ``prepare_data.py index``, or ``demo``, the procedural data set."""
    train_split: Annotated[str, MinLen(1)] = "train"
    val_split: Annotated[str, MinLen(1)] = "test"
    num_frames: PositiveInt = 8
    """Frames in a clip."""
    sampling: Literal["segments", "uniform", "dense"] = "segments"
    """Which frames: one of each of equal segments (TSN, TPN), one between evenly spread frames
    (Swin), or every ``frame_stride``-th of a stretch of the video (Kinetics recipes); random in
    training, in the middle in evaluation."""
    frame_stride: PositiveInt = 1
    """``dense``: frames from one of the clip to the next."""
    short_side: Annotated[int, Ge(16)] = 256
    """Short side of the decoded frames, pixels."""
    crop_size: Annotated[int, Ge(16)] = 224
    """Height and width of a clip, pixels."""
    crop: Literal["random_resized", "multi_scale"] = "random_resized"
    """Training crop: a box of random area and shape, or TSN's: sides of fixed shares of the short
    side at fixed places."""
    crop_scale: tuple[PositiveRatio, PositiveRatio] = (0.4, 1.0)
    """``random_resized``: range of the area of a training crop over the area of the frame."""
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (0.75, 4 / 3)
    """``random_resized``: range of width over height of a training crop."""
    crop_sides: Annotated[tuple[PositiveRatio, ...], MinLen(1)] = (1.0, 0.875, 0.75, 0.66)
    """``multi_scale``: sides of a training crop over the frame's short side, falling."""
    max_bad_ratio: Ratio = 0.05
    """Share of an epoch's clips that may be undecodable before the run ends with an error."""
    num_decoders: PositiveInt = 1
    """Decoding actors for the training stream; evaluation has as many of its own."""
    cpus_per_decoder: PositiveFloat = 1.0
    decoder_resource: str = ""
    """Custom Ray resource of the nodes that decode; a decoder takes ``cpus_per_decoder`` of it.
    Empty lets every node decode."""
    prefetch_blocks: PositiveInt = 2
    """Decoded blocks, of one to eight of a worker's shares of a batch, fetched ahead."""
    decode_timeout_s: PositiveFloat = 60.0
    """Decoding a clip may take; then the clip is refused and its decoder started anew."""
    record_samples: bool = False
    """Write ``runs/NAME/samples/``: which clips each step was trained on."""
    demo: DemoConfig = field(default_factory=DemoConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Random changes of training clips on the device, the same for all frames of a clip."""

    flip_probability: Ratio = 0.5
    """Share of clips mirrored left to right."""
    flip_labels: tuple[tuple[Label, Label], ...] = ()
    """Pairs of classes that a mirrored clip changes between, as in [[86, 87], [93, 94]]."""
    color_jitter: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (
        0.0,
        0.0,
        0.0,
        0.0,
    )
    """Largest relative change of brightness, contrast and saturation, and of hue (at most 0.5);
    0 leaves one alone."""
    rand_augment_operations: Annotated[int, Ge(0)] = 0
    """RandAugment's n: operations drawn for a clip; 0 switches it off."""
    rand_augment_magnitude: Annotated[int, Interval(ge=0, le=30)] = 7
    """RandAugment's m, of 30."""
    erase_probability: Ratio = 0.0
    """Share of clips in which a random box is erased."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TPNConfig:
    """ResNet with a temporal pyramid neck (TPN)."""

    trunk: Literal["tsm", "slowonly"] = "tsm"
    """2D ResNet with temporal shifts, or 3D ResNet without temporal stride."""
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 4, 6, 3)
    """Bottleneck blocks per stage; (3, 4, 6, 3) is ResNet-50."""
    width: PositiveInt = 64
    """Channels of the stem; stage i ends in width * 4 * 2**i channels."""
    shift_div: PositiveInt = 8
    """TSM moves 1/shift_div of the channels forward and as many backward in time."""
    shift_downsample: bool = False
    """Downsampling shortcuts read shifted features too, as in the released TPN; TSM shifts the
    residual branch alone."""
    geometry: Literal["stride1", "stock"] = "stride1"
    """``stride1``: the neck ends in neck_channels x frames at stride 16, for DSTS; ``stock``: the
    released network, 2 * neck_channels x 1 at stride 32."""
    neck_channels: PositiveInt = 1024
    """Channels of the pyramid's levels."""
    neck_groups: PositiveInt = 32
    """Groups of the temporal modulation and level fusion convolutions."""
    auxiliary_loss_weight: NonNegativeFloat = 0.5
    """Weight of the auxiliary head's loss on the fourth stage; 0 leaves the head out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Swin3DConfig:
    """Video Swin Transformer; the defaults are Swin-B for Something-Something v2."""

    channels: PositiveInt = 128
    """Of the first stage; every further stage doubles them."""
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 18, 2)
    """Blocks per stage."""
    heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (4, 8, 16, 32)
    """Attention heads per stage."""
    window: tuple[PositiveInt, PositiveInt, PositiveInt] = (16, 7, 7)
    """Time, height and width of an attention window, in patches of 2x4x4."""
    stochastic_depth: RatioBelowOne = 0.4
    """Drop probability of the last block's branches; it rises linearly from 0 at the first."""
    activation_checkpointing: bool = False
    """Recompute blocks in the backward pass instead of keeping their activations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """Which backbone; the other one's section is not read."""

    name: Literal["tpn", "swin3d"] = "tpn"
    freeze_stages: Annotated[int, Interval(ge=0, le=5)] = 0
    """Exclude from training: 0 nothing, 1 the stem, 1 + i the stem and the first i stages."""
    evaluation_mode: Literal["none", "trunk", "all"] = "none"
    """What trains without batch statistics and random draws, by its running statistics, for small
    batches: the stem and the stages, or TPN's neck and auxiliary head too."""
    tpn: TPNConfig = field(default_factory=TPNConfig)
    swin3d: Swin3DConfig = field(default_factory=Swin3DConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Backbone and classification head."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    weights: str = ""
    """File of weights to start from: TPN, TSM, ResNet-50 or (Video) Swin as published, or ours, or
    a registered model, as models:/NAME@champion; empty starts from random weights."""
    dropout: RatioBelowOne = 0.5
    """Dropout before the classifier."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DSTSConfig:
    """Dynamic Spatio-Temporal Specialization module."""

    enabled: bool = True
    insertion: Literal["neck", "res4", "norm"] = "neck"
    """What DSTS reads: TPN's ``neck`` in its stride1 geometry, TPN's ``res4`` as a side branch of
    the neck, or Swin's last ``norm``."""
    num_neurons: PositiveInt = 10
    """Specialized neurons in a layer, N (Table 6)."""
    num_layers: PositiveInt = 3
    """Layers, L (Table 7)."""
    specialization: Literal["gates", "fixed", "conv3d"] = "gates"
    """Operators behind learned gates, behind two fixed halves of the channels, or one 3x3x3
    convolution (Table 3)."""
    synapse: Literal["gumbel", "average"] = "gumbel"
    """Activate one neuron per sample, or average all of them (Table 4)."""
    scoring_kernel: Literal["1x1x1", "1x3x3", "double"] = "1x1x1"
    """Shape of the scoring kernels (supplement Table 2); ``double`` has 2 N_out outputs."""
    scoring_rows: Literal["collapsed", "literal"] = "collapsed"
    """Store scoring kernels summed over their outputs, which is exact, or all of them."""
    impulse: Literal["sum", "mean", "standardized", "running"] = "standardized"
    """Normalization of the impulse; ``sum`` is Eq. 2 to the letter, ``running`` standardizes by
    moving statistics in training too."""
    impulse_deviation: PositiveFloat = 1.0
    """Standard deviation of ``standardized`` and ``running`` impulses; Gumbel noise has 1.28."""
    temperature: PositiveFloat = 1.0
    """Gumbel-softmax temperature (section 4.1)."""
    utilization_loss_weight: NonNegativeFloat = 0.0
    """Weight of the loss that spreads samples over neurons (ours); 0 leaves it out."""
    dispatch: Literal["dense", "sparse"] = "dense"
    """Neurons computed in training: all (``dense``) or the chosen ones (``sparse``); an average
    takes all in either."""
    width: Annotated[int, Ge(0)] = 0
    """Channels between operators and fuse convolution; 0 means those of the features."""
    groups: PositiveInt = 32
    """Groups of the operators."""
    fuse: Literal["shared", "per_neuron"] = "shared"
    """One fuse convolution for a layer's neurons, or one for each (Fig. 3)."""
    fuse_groups: PositiveInt = 32
    """Groups of the fuse convolution."""
    fuse_kernel: Literal["1x1x1", "1x3x3", "3x1x1"] = "1x1x1"
    """Shape of the fuse convolution (supplement Table 3)."""
    channel_shuffle: bool = True
    """Shuffle channels before the fuse convolution so that groups mix (ours)."""
    skip: bool = True
    """One skip connection over all layers (supplement Table 1)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UDLConfig:
    """Upstream-Downstream Learning, Eq. 9-11."""

    enabled: bool = True
    inner_lr: NonNegativeFloat = 0.01
    """Step size of the simulated update, alpha in Eq. 9."""
    covers: Literal["operators", "module"] = "operators"
    """What the simulated update moves: S and T (the paper), or all of DSTS downstream and the
    classifier."""
    upstream_gradient: Literal["second_order", "with_first_order"] = "second_order"
    """Eq. 10's gradient (the paper), or with that of the held-out loss in u-hat added."""
    held_out: Literal["next", "previous_features"] = "next"
    """D_val: the next training batch, or the features that the previous step trained on (not
    unseen, but free of a backbone pass)."""
    held_out_ratio: PositiveRatio = 1.0
    """Share of the next batch that is D_val."""
    upstream_optimizer: Literal["adamw", "shared"] = "adamw"
    """``adamw`` without weight decay (ours), or ``shared``: kind and settings of ``optim`` (the
    paper)."""
    upstream_lr: PositiveFloat = 0.001
    """Learning rate of ``adamw``; it follows the schedule of ``optim``."""
    upstream_clip_norm: NonNegativeFloat = 1.0
    """Largest norm of the upstream gradient; 0 switches clipping off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Optimizer of everything but upstream, and the schedule of both."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveFloat = 0.01
    """Learning rate of a global batch of ``train.batch_size``, unless ``base_batch_size`` says
    otherwise."""
    base_batch_size: Annotated[int, Ge(0)] = 0
    """Global batch that ``lr`` is stated for: the run takes lr * train.batch_size /
    base_batch_size and says so; 0 takes ``lr`` as it stands."""
    backbone_lr_multiplier: PositiveFloat = 1.0
    """On the learning rate of the backbone."""
    head_lr_multiplier: PositiveFloat = 1.0
    """On the learning rate of the linear layer before the logits."""
    groups: Literal["by_role", "longest_key", "decay_all"] = "by_role"
    """Who gets multiplier and decay. ``by_role``: the whole backbone its multiplier; no decay of
    biases, normalization and position tables. ``longest_key``: as in Video Swin's released code,
    where position tables keep the full rate, and the backbone's norms and all biases are decayed.
    ``decay_all``: as ``by_role``, but everything is decayed."""
    momentum: RatioBelowOne = 0.9
    nesterov: bool = True
    betas: tuple[RatioBelowOne, RatioBelowOne] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 5e-4
    clip_norm: NonNegativeFloat = 20.0
    """Largest gradient norm; 0 switches clipping off."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[PositiveFloat, ...] = ()
    """``step``: epochs after which the learning rate falls to a tenth."""
    warmup_epochs: NonNegativeFloat = 0.0
    """Epochs, with fractions, in which the learning rate rises linearly from zero, step by step."""
    label_smoothing: RatioBelowOne = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Length of the run, batches, and how often it is evaluated and saved."""

    num_epochs: PositiveInt = 10
    max_steps: Annotated[int, Ge(0)] = 0
    """Stop after this many optimizer steps, into which the schedule is pressed; 0 means after
    ``num_epochs``."""
    batch_size: PositiveInt = 64
    """Global batch: clips in one optimizer step over all workers and accumulated micro-batches."""
    micro_batch_size: Annotated[int, Ge(0)] = 0
    """Clips in one forward pass of a worker at the most; gradients of as few micro-batches as
    that takes are accumulated to the global batch. 0 means a worker's whole share."""
    evaluate_every_epochs: PositiveInt = 1
    """Evaluation and a checkpoint after every so many epochs, and at the end."""
    checkpoint_every_steps: Annotated[int, Ge(0)] = 0
    """A checkpoint without an evaluation after every so many steps; 0 means none."""
    on_nonfinite_loss: Literal["stop", "skip"] = "stop"
    """A step whose loss or gradient is NaN or infinite updates nothing and ends the run, or is
    counted and skipped. Its videos are listed in the run's folder."""
    keep_checkpoints: PositiveInt = 2
    """Best checkpoints kept; the latest one is kept besides, where it is none of them."""
    seed: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """Evaluation, in training and of a trained model."""

    protocol: Annotated[str, MinLen(1)] = "1x1"
    """Views of a video, num_clips x num_crops: 1x1, 1x3 (Swin on Something-Something v2), 2x3
    (TPN), 10x3, or any other."""
    average: Literal["softmax", "logits"] = "softmax"
    """What is averaged over the views of a video."""
    short_side: Annotated[int, Ge(0)] = 0
    """Short side of the decoded frames, pixels; 0 means ``data.short_side``."""
    crop_size: Annotated[int, Ge(0)] = 0
    """Height and width of a view, pixels; 0 means ``data.crop_size``."""
    batch_size: PositiveInt = 32
    """Views in one forward pass of one worker."""
    refused: Literal["wrong", "stop"] = "wrong"
    """A video that cannot be decoded counts as ``wrong``, or its reason ends the run: ``stop``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """DeepSpeed."""

    zero_stage: Annotated[int, Interval(ge=0, le=3)] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    """``bf16`` computes in bfloat16 under autocast; parameters stay in float32."""
    synchronize_batch_norm: bool = True
    """Batch statistics over all workers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingConfig:
    """Ray Train workers."""

    num_workers: PositiveInt = 1
    min_workers: Annotated[int, Ge(0)] = 0
    """Fewest workers the run goes on with where nodes are lost; 0 means ``num_workers``."""
    max_workers: Annotated[int, Ge(0)] = 0
    """Most workers it grows to where nodes come; 0 means ``num_workers``. Batch and schedule stay
    what they are with any number."""
    use_gpu: bool = False
    cpus_per_worker: PositiveFloat = 1.0
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """Workers on few nodes or on many, where it can be; ``STRICT``: all on one, or each on its
    own."""
    wait_for_nodes_s: NonNegativeFloat = 0.0
    """Wait so long for nodes that an autoscaler or somebody adds, where those there are too few; 0
    refuses the run at once."""
    max_failures: Annotated[int, Ge(0)] = 3
    """Failures of workers after which they are started again from the latest checkpoint."""
    collective_timeout_s: Annotated[float, Ge(10.0)] = 600.0
    """Workers that wait longer for one of them, or do not answer as long, are started again from
    the latest checkpoint: so long a stuck worker goes unnoticed."""

    @property
    def fewest_workers(self) -> int:
        """Workers without which the run does not go on."""
        return self.min_workers or self.num_workers

    @property
    def most_workers(self) -> int:
        """Workers the run takes at the most."""
        return self.max_workers or self.num_workers


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingConfig:
    """MLflow run and registered model."""

    uri: str = ""
    """Tracking server; empty means an embedded SQLite store in the storage folder."""
    experiment: Annotated[str, MinLen(1)] = "dsts_ray"
    model_name: str = "dsts_ray"
    """Registered model that the best checkpoint becomes a version of; empty registers nothing."""
    metric: Literal["val/top1", "val/top5", "val/mean_class_accuracy"] = "val/top1"
    """Metric (larger is better) that picks the best checkpoint and moves the alias ``champion``."""
    figures_every: Annotated[int, Ge(0)] = 5
    """Evaluations between those whose figures (gates, use of the neurons, neurons and classes,
    confusion) are drawn into MLflow; the last one's always are. 0 draws none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageConfig:
    """Where run folders live."""

    path: str = ""
    """Folder of run folders; empty means ``runs`` here, or ``$DSTS_HOME/runs`` inside a Ray job."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A run."""

    name: str = ""
    """Run name (letters, digits, dots, dashes, underscores); empty derives one from preset and
    configuration, so that the same command resumes."""
    preset: str = ""
    """Preset the configuration started from."""
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    dsts: DSTSConfig = field(default_factory=DSTSConfig)
    udl: UDLConfig = field(default_factory=UDLConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)

    def with_workers(self, num_workers: int) -> "Config":
        """The same run on so many workers."""
        return replace(self, scaling=replace(self.scaling, num_workers=num_workers))

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of a worker in an optimizer step: the fewest small enough.

        Example: 64 clips on 4 workers with ``micro_batch_size`` 6 are 3 micro-batches of 6 or 5.
        """
        share = -(-self.train.batch_size // self.scaling.num_workers)
        return -(-share // (self.train.micro_batch_size or share))
