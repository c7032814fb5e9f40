"""Parameter engine on DeepSpeed: ZeRO 0, 1 or 2. The only file that knows DeepSpeed."""

import logging
import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
from deepspeed.ops import __compatible_ops__
from deepspeed.utils import logger, safe_get_full_optimizer_state, safe_set_full_optimizer_state

from dsts_ray.train.engine import load_optimizer_state, optimizer_state, set_lr

logger.setLevel(logging.WARNING)
__compatible_ops__["deepspeed_shm_comm"] = (
    False  # gloo serves; compiling it takes 40 s and a compiler
)


class DeepSpeedEngine:
    """A DeepSpeed engine over a set of parameters whose forward pass happens elsewhere.

    The model's passes go around the engine (``functional_call`` and plain calls), its gradients
    through it, so that reduction, clipping and partitioning stay DeepSpeed's.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        *,
        zero_stage: int,
        clip_norm: float,
        accumulation_steps: int,
    ) -> None:
        """Own ``parameters``.

        Args:
            parameters: By name; ``optimizer`` holds the same ones.
            optimizer: Torch optimizer, partitioned over workers from stage 1 on.
            zero_stage: 0, 1 or 2.
            clip_norm: Largest gradient norm, 0 switches clipping off.
            accumulation_steps: Calls of ``backward`` in a step.
        """
        self.parameters = dict(parameters)
        self.accumulation_steps = accumulation_steps
        self._pending = False
        self.engine, *_ = deepspeed.initialize(
            model=_Owner(self.parameters),
            optimizer=optimizer,
            dist_init_required=False,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": accumulation_steps,
                "gradient_clipping": clip_norm,
                "zero_optimization": {"stage": zero_stage, "overlap_comm": False},
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
                "steps_per_print": 10**9,
            },
        )
        self._optimizer: Any = self.engine.optimizer

    def backward(self, loss: Tensor) -> None:
        """See :class:`~dsts_ray.train.engine.ParameterEngine`.

        DeepSpeed divides by the accumulation steps and counts one micro-batch per ``engine.step``,
        so the step of all but the last micro-batch happens here.
        """
        if self._pending:
            self.engine.step()
        self.engine.backward(loss * self.accumulation_steps)
        self._pending = True

    def step(self, lr: float) -> float:
        """See :class:`~dsts_ray.train.engine.ParameterEngine`."""
        set_lr(self._optimizer, lr)
        self._pending = False
        if not isinstance(self._optimizer, torch.optim.Optimizer):
            self.engine.step()  # ZeRO 1 and 2 take no step with such a gradient
            return float(self._optimizer._global_grad_norm)
        norm = self._reduced_gradient_norm()
        if math.isfinite(norm):
            self.engine.step()
        else:
            self._count_without_update()
        return norm

    def _count_without_update(self) -> None:
        self.engine.set_gradient_accumulation_boundary(False)
        self.engine.step()
        self.engine._is_gradient_accumulation_boundary = None
        self.engine.zero_grad()

    def _reduced_gradient_norm(self) -> float:
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        return float(nn.utils.get_total_norm(gradients))

    def state(self) -> dict[str, Tensor]:
        """See :class:`~dsts_ray.train.engine.ParameterEngine`."""
        zero = self._optimizer
        if isinstance(zero, torch.optim.Optimizer):
            return optimizer_state(zero, self.parameters)
        _link_state(zero)
        steps = [entries["step"] for entries in zero.optimizer.state.values() if "step" in entries]
        state = {}
        for name, parameter in self.parameters.items():
            for entry in _state_entries(zero.optimizer):
                value: Any = safe_get_full_optimizer_state(parameter, entry)
                state[f"{name}/{entry}"] = value.cpu()
            if steps:
                state[f"{name}/step"] = steps[0].cpu().clone()
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See :class:`~dsts_ray.train.engine.ParameterEngine`."""
        zero = self._optimizer
        if isinstance(zero, torch.optim.Optimizer):
            load_optimizer_state(zero, self.parameters, state)
            return
        entries = sorted({key.rpartition("/")[2] for key in state} - {"step"})
        if not entries:
            return
        steps = [value for key, value in state.items() if key.endswith("/step")]
        for flat in zero.single_partition_of_fp32_groups:
            zero.optimizer.state[flat] = {entry: torch.zeros_like(flat) for entry in entries}
            if steps:
                zero.optimizer.state[flat]["step"] = steps[0].clone()
        _link_state(zero)
        for name, parameter in self.parameters.items():
            for entry in entries:
                value = state[f"{name}/{entry}"].to(parameter.device, torch.float32)
                safe_set_full_optimizer_state(parameter, value, entry)


class _Owner(nn.Module):
    """A module that holds parameters and has no forward pass."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.parameters_by_index = nn.ParameterList(parameters.values())


def _link_state(zero: Any) -> None:  # noqa: ANN401
    """Link every parameter to its share of the optimizer state.

    DeepSpeed does it once, after the first parameter group's first step, when the other groups have
    no state yet.
    """
    zero._hp_optimizer_states_linked = False
    zero._lazy_init_hp_params_optimizer_state()


def _state_entries(optimizer: torch.optim.Optimizer) -> list[str]:
    return sorted(
        {
            entry
            for entries in optimizer.state.values()
            for entry, value in entries.items()
            if isinstance(value, Tensor) and entry != "step"
        }
    )
