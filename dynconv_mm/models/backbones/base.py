"""What the backbones share: where a convolution stands, frozen stages, norms in eval mode."""
from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...compat.close_names import did_you_mean
from ...functional.operator import is_recorded
from ...layers.conv_arguments import check_bool, check_module_cfg

INIT_CFG = (dict(type='Kaiming', layer=['Conv2d']), dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']))


class ConvPlace(NamedTuple):
    """Where in a network a convolution stands."""

    role: str  # 'stem', 'downsample', 'last', or its name in the block: 'conv1', …, 'expand', 'depthwise', 'project'
    stage: int  # 0 the stem, 1 … the stages
    block: int = 0  # counted within the stage
    kernel_size: int | None = None

    @property
    def in_block(self) -> bool:
        """Whether it is on the residual path of a block."""
        return self.role not in ('stem', 'downsample', 'last')


def check_depth(depth: int, known: Iterable[int]) -> None:
    """Raise a ValueError unless a network's depth is one of those that there are."""
    if isinstance(depth, bool) or not isinstance(depth, int) or depth not in known:
        raise ValueError(f'depth must be one of {sorted(known)}, but is {depth!r}')


def refuse_unknown(kind: type, arguments: Iterable[str]) -> None:
    """Raise a TypeError, as Python's but with close names, if there are arguments that no class of a backbone took."""
    for name in arguments:
        known = []
        for base in kind.__mro__[:kind.__mro__.index(StagedBackbone)]:
            known += inspect.signature(base).parameters
        raise TypeError(f'{kind.__name__} got an unexpected keyword argument {name!r}' + did_you_mean(name, known))


def attention_modules(module: nn.Module) -> list[nn.Module]:
    """What the dynamic layers within compute their attentions by, as each layer says in a method of this name."""
    return [attention for layer in module.modules() if hasattr(layer, 'attention_modules')
            for attention in layer.attention_modules()]


def batch_norm_cfg(norm_cfg: dict) -> dict:
    """``norm_cfg`` where it is a batch norm, else BN: for norms inside a dynamic convolution."""
    return norm_cfg if norm_cfg['type'] in ('BN', 'SyncBN') else dict(type='BN')


class StagedBackbone(BaseModule):
    """A stem and numbered stages, of which the first can be frozen.

    Subclasses build ``self.stages`` (names of the stages' modules, in order) and say in
    :meth:`stem_modules` what belongs to the stem; a method overrides :meth:`conv_cfg_at` and, if a block's
    convolutions share something, :meth:`make_routing`.
    """

    stage_blocks: tuple[int, ...]  # number of blocks of each stage
    expects_weights = True  # until all parameters were loaded, or a warning said that they were not

    def __init__(self, out_indices: Sequence[int], frozen_stages: int, conv_cfg: dict | None, norm_cfg: dict,
                 norm_eval: bool, freeze_attention: bool, with_cp: bool, init_cfg: dict | list[dict] | None,
                 num_stages: int) -> None:
        super().__init__(list(INIT_CFG) if init_cfg is None else init_cfg)
        if not isinstance(out_indices, Sequence) or not out_indices \
                or any(not isinstance(index, int) or index not in range(num_stages) for index in out_indices) \
                or len(set(out_indices)) < len(out_indices):
            raise ValueError(f'out_indices must be different stages out of 0 … {num_stages - 1}, but is '
                             f'{out_indices!r}')
        if isinstance(frozen_stages, bool) or not isinstance(frozen_stages, int) \
                or frozen_stages not in range(-1, num_stages + 1):
            raise ValueError(f'frozen_stages must be an int from -1 (none) to {num_stages}, but is '
                             f'{frozen_stages!r}')
        check_module_cfg('conv_cfg', conv_cfg, "dict(type='Conv2d')", optional=True)
        check_module_cfg('norm_cfg', norm_cfg, "dict(type='BN')")
        check_bool('freeze_attention', freeze_attention)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg
        self.norm_eval = norm_eval
        self.freeze_attention = freeze_attention
        self.with_cp = with_cp
        self.stages: list[str] = []

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """The ``conv_cfg`` of the convolution at ``place``; a dynamic network overrides this."""
        return self.conv_cfg

    def is_in_last_blocks(self, stage: int, block: int, count: int) -> bool:
        """Whether a block, counted from 0 in a stage, counted from 1, is one of the last ``count``."""
        return sum(self.stage_blocks[stage - 1:]) - block <= count

    def make_routing(self, in_channels: int, stage: int, block: int) -> nn.Module | None:
        """What computes, from a block's input, the second argument of all its convolutions; None if they take none."""
        return None

    def initial_checkpoints(self) -> list[str]:
        """The checkpoints that ``init_cfg`` names."""
        cfgs = self.init_cfg if isinstance(self.init_cfg, (list, tuple)) else [self.init_cfg or {}]
        return [cfg['checkpoint'] for cfg in cfgs if cfg.get('checkpoint')]

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says.

        Raises:
            FileNotFoundError: the checkpoint to start from is not there.
            RuntimeError: it is of another architecture.
        """
        for path in self.initial_checkpoints():
            if '://' not in path and not Path(path).is_file():
                raise FileNotFoundError(
                    f'{type(self).__name__} is to start from {path!r}, which does not exist. Put a pre-trained '
                    'checkpoint there (docs/training.md says how to get one), name another with `--cfg-options '
                    'model.backbone.init_cfg.checkpoint=PATH`, or train from scratch with `--cfg-options '
                    'model.backbone.init_cfg=None model.backbone.frozen_stages=-1 model.backbone.norm_eval=False`.')
        super().init_weights()

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Where ``init_cfg``, the backbone's or that of a model around it, reads a checkpoint, refuse another
        architecture's weights, which mmengine would skip but for a line in the log.

        All modules have ``_params_init_info`` while mmengine initialises the outermost, and at no other time.
        """
        if any(key.startswith(prefix) for key in state_dict):
            buffers = {name for name, _ in self.named_buffers()}
            parameters = {name: value.shape for name, value in self.state_dict().items() if name not in buffers}
            misfits = [f'{name}: ' + (f'{list(state_dict[prefix + name].shape)} in the checkpoint, '
                                      f'{list(shape)} here' if prefix + name in state_dict else 'missing')
                       for name, shape in parameters.items()
                       if getattr(state_dict.get(prefix + name), 'shape', None) != shape]
            if not misfits:
                self.expects_weights = False
            elif hasattr(self, '_params_init_info'):
                shown = '; '.join(misfits[:3]) + ('; …' if len(misfits) > 3 else '')
                raise RuntimeError(
                    f'the checkpoint does not fit this {type(self).__name__}: {len(misfits)} of its '
                    f'{len(parameters)} parameters are missing or of another shape ({shown}). It is '
                    'of another architecture: use the config that it was trained with, or, if it is a static network, '
                    'tools/model_converters/warm_start.py.')
        super()._load_from_state_dict(state_dict, prefix, *args)

    def stem_modules(self) -> Iterable[nn.Module]:
        """The modules before the first stage."""
        raise NotImplementedError

    def _run_stages(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = []
        for index, stage in enumerate(self.stages):
            x = getattr(self, stage)(x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def _freeze_stages(self) -> None:
        """Frozen stages get no gradients and stay in eval mode, but for attentions that are not to be frozen; 0 is the
        stem alone."""
        if self.frozen_stages < 0:
            return
        for module in (*self.stem_modules(), *(getattr(self, name) for name in self.stages[:self.frozen_stages])):
            module.eval()
            spared = [] if self.freeze_attention else attention_modules(module)
            for attention in spared:
                attention.train(self.training)
            learning = {parameter for attention in spared for parameter in attention.parameters()}
            for parameter in module.parameters():
                if parameter not in learning:
                    parameter.requires_grad = False

    def train(self, mode: bool = True) -> StagedBackbone:
        """Set the mode; frozen stages, and with ``norm_eval`` all batch norms, stay in eval mode: those in attentions
        too, unless ``freeze_attention`` is False.

        The first time that training starts so without weights having been loaded, the log warns.
        """
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            spared = [] if self.freeze_attention else attention_modules(self)
            learning = {norm for attention in spared for norm in attention.modules()}
            for module in self.modules():
                if isinstance(module, _BatchNorm) and module not in learning:
                    module.eval()
        if mode and self.expects_weights:
            self._warn_of_random_weights()
        return self

    def _warn_of_random_weights(self) -> None:
        """Warn if anything that was never loaded is kept as it is."""
        harm = []
        if self.frozen_stages >= 0:
            stages = {0: '', 1: ' and its first stage'}.get(self.frozen_stages,
                                                            f' and its first {self.frozen_stages} stages')
            harm.append(f'frozen_stages={self.frozen_stages} keeps its stem{stages} at random weights')
        norms = sum(isinstance(module, _BatchNorm) for module in self.modules())
        if self.norm_eval and norms:
            harm.append(f'norm_eval=True keeps its {norms} batch norms at their initial statistics, mean 0 and '
                        'variance 1')
        if harm:
            print_log(f'{type(self).__name__} is trained, but no weights were loaded into it: {"; and ".join(harm)}. '
                      'It will learn badly. Start from a pre-trained checkpoint (init_cfg, load_from), or set '
                      'frozen_stages=-1 and norm_eval=False to train from scratch.', 'current', logging.WARNING)
            self.expects_weights = False


class KeptStatistics:
    """Within it, batch norms count nothing: for a block that computes again what they have counted already.

    Can be entered again, as the backward pass of a graph that is kept does.

    Args:
        block (Module): whose batch norms.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __enter__(self) -> None:
        self.kept = [(buffer, buffer.clone()) for norm in self.block.modules()
                     if isinstance(norm, _BatchNorm) and norm.training for buffer in norm.buffers()]

    def __exit__(self, *_) -> None:
        with torch.no_grad():
            for buffer, value in self.kept:
                buffer.copy_(value)
        self.kept = []


class CheckpointedBlock(nn.Module):
    """A block that can trade time for memory: with ``with_cp`` its activations are computed again in the
    backward pass, and its norms count them once."""

    with_cp = False
    routing: nn.Module | None  # see StagedBackbone.make_routing

    def _shared_arguments(self, x: Tensor) -> tuple[Tensor, ...]:
        """What each convolution of the block takes beside its features, from the block's input."""
        return () if self.routing is None else (self.routing(x), )

    def _residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _run(self, x: Tensor) -> Tensor:
        if not self.with_cp or not x.requires_grad:
            return self._residual(x)
        if is_recorded():  # compiled code changes statistics in the forward pass alone
            return checkpoint(self._residual, x, use_reentrant=False)
        return checkpoint(self._residual, x, use_reentrant=False, context_fn=self._checkpoint_contexts)

    def _checkpoint_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Of the forward pass and of its repetition."""
        return nullcontext(), KeptStatistics(self)
