"""What the layers use of mmengine and mmcv, and what stands in for it where these are not installed."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .installed import HAS_OPENMMLAB

if HAS_OPENMMLAB:
    from mmcv.cnn import ConvModule, build_norm_layer
    from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
    from mmcv.cnn.bricks.wrappers import Conv2d as MMCVConv2d
    from mmengine.registry import MODELS
else:

    class Registry:
        """Modules by name, of one scope."""

        parent = None

        def __init__(self, **modules: type) -> None:
            self.module_dict = modules

        def get(self, name: str) -> type | None:
            """The module of a name; None if there is none."""
            return self.module_dict.get(name)

        def register_module(self, name: str | None = None) -> Callable[[type], type]:
            """A decorator that adds a class."""

            def register(module: type) -> type:
                self.module_dict[name or module.__name__] = module
                return module

            return register

        @contextmanager
        def switch_scope_and_registry(self, scope: str | None) -> Iterator[Registry]:
            """Itself, for any scope."""
            yield self

    MODELS = Registry(BN=nn.BatchNorm2d, BN1d=nn.BatchNorm1d, BN2d=nn.BatchNorm2d, SyncBN=nn.SyncBatchNorm,
                      GN=nn.GroupNorm, LN=nn.LayerNorm, ReLU=nn.ReLU)
    NORM_NAMES = {nn.GroupNorm: 'gn', nn.LayerNorm: 'ln'}  # of a norm in a module; of all others: 'bn'
    MMCVConv2d = nn.Conv2d

    class Conv2dAdaptivePadding(nn.Conv2d):
        """mmcv's: no model has one."""

        def forward(self, x: Tensor) -> Tensor:
            raise NotImplementedError

    def build_norm_layer(cfg: dict, num_features: int) -> tuple[str, nn.Module]:
        """The name and the norm that a config describes, as mmcv's function."""
        arguments = dict(cfg)
        kind, requires_grad = MODELS.get(arguments.pop('type')), arguments.pop('requires_grad', True)
        norm = kind(num_channels=num_features, **arguments) if kind is nn.GroupNorm else kind(num_features, **arguments)
        return NORM_NAMES.get(kind, 'bn'), norm.requires_grad_(requires_grad)

    class ConvModule(nn.Module):
        """A convolution, its norm and its ReLU in this order, named as in mmcv's."""

        order, with_explicit_padding = ('conv', 'norm', 'act'), False

        def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], stride: int = 1,
                     padding: int = 0, dilation: int = 1, groups: int = 1, bias: bool | str = 'auto',
                     conv_cfg: dict | None = None, norm_cfg: dict | None = None,
                     act_cfg: dict | None = dict(type='ReLU')) -> None:
            super().__init__()
            self.with_norm, self.with_activation = norm_cfg is not None, act_cfg is not None
            self.conv = conv_cfg['type'](in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                         not self.with_norm if bias == 'auto' else bias)
            if self.with_norm:
                self.norm_name, norm = build_norm_layer(norm_cfg, out_channels)
                self.add_module(self.norm_name, norm)
            if self.with_activation:
                self.activate = MODELS.get(act_cfg['type'])(inplace=True)

        @property
        def norm(self) -> nn.Module | None:
            """The norm."""
            return getattr(self, self.norm_name) if self.with_norm else None

        @torch.no_grad()
        def init_weights(self) -> None:
            """The norm's scale 1 and shift 0; the convolution initialises itself."""
            for name, parameter in self.norm.named_parameters() if self.with_norm else ():
                parameter.fill_(name == 'weight')

__all__ = ['MODELS', 'Conv2dAdaptivePadding', 'ConvModule', 'MMCVConv2d', 'build_norm_layer']
