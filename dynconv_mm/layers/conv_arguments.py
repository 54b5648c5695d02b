"""The arguments of ``torch.nn.Conv2d``, checked and kept under its attribute names."""
from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..compat.close_names import did_you_mean
from ..compat.openmmlab import MODELS
from ..functional.geometry import pair
from ..functional.operator import is_plain

PADDING_MODES = ('zeros', 'reflect', 'replicate', 'circular')


def check_positive_int(name: str, value: int) -> None:
    """Raise a ValueError that names the argument unless it is a positive int."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{name} must be a positive int, but is {value!r}')


def check_divisor(name: str, value: int, of: str, channels: int) -> None:
    """Raise a ValueError that names the argument unless it is a positive int that divides another's ``channels``."""
    check_positive_int(name, value)
    if channels % value:
        raise ValueError(f'{name} must divide {of}={channels}, but is {value}')


def check_bool(name: str, value: bool) -> None:
    """Raise a ValueError that names the argument unless it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f'{name} must be True or False, but is {value!r}')


def check_reduction(reduction: float, example: str, name: str = 'reduction') -> None:
    """Raise a ValueError that names the argument unless it is a number in (0, 1]."""
    if isinstance(reduction, bool) or not isinstance(reduction, (int, float)) or not 0 < reduction <= 1:
        raise ValueError(f'{name} must be in (0, 1], e.g. {example}, but is {reduction!r}')


def check_module_cfg(name: str, cfg: dict | None, example: str, optional: bool = False) -> None:
    """Raise a ValueError that names the argument unless it is a dict whose type is registered, or a class, and whose
    other keys that takes.

    Args:
        name (str): the argument.
        cfg (dict | None): its value.
        example (str): one that would do, for the message.
        optional (bool): whether None will do. Default: False.
    """
    if cfg is None and optional:
        return
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    with MODELS.switch_scope_and_registry(None) as registry:  # as mmcv looks for it
        found = registry.get(kind) if isinstance(kind, str) else kind if isinstance(kind, type) else None
        names = []
        while found is None and registry is not None:
            names, registry = [*names, *registry.module_dict], registry.parent
    if found is None:
        raise ValueError(f"{name} must be {'None or ' if optional else ''}a dict whose type is registered, e.g. "
                         f'{example}, but is {cfg!r}' + (did_you_mean(kind, names) if kind else ''))
    taken = inspect.signature(found).parameters
    unknown = [key for key in cfg if key not in ('type', '_scope_', 'requires_grad', *taken)]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        raise ValueError(f'{name} has {unknown[0]!r}, which {kind!r} does not take{did_you_mean(unknown[0], taken)}')
    if kind == 'GN' and 'num_groups' not in cfg:
        raise ValueError(f"{name} of type 'GN' needs num_groups, but is {cfg!r}")


def by_kernel(convert: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A conversion of parameters that takes a stack of kernels as one kernel of four dimensions, as which it has a
    memory format."""
    return lambda tensor: convert(tensor) if tensor.dim() != 5 else \
        convert(tensor.flatten(0, 1)).unflatten(0, tensor.shape[:2])


@torch.no_grad()
def _is_scaled(weight: Tensor, new: Tensor) -> bool:
    """Whether what is along the first dimension of ``weight`` got a factor each, not all of them 1: of one element
    each, any others."""
    if not type(weight) is type(new) is nn.Parameter or weight.is_meta or new.is_meta or not new.is_floating_point():
        return False
    tolerance = 8 * torch.finfo(new.dtype).eps
    old, new = (tensor.flatten(1).to('cpu', torch.float64) for tensor in (weight, new))
    factors = ((old * new).sum(1, keepdim=True) / old.square().sum(1, keepdim=True)).nan_to_num(1.)  # of zeros
    return torch.allclose(new, factors * old, tolerance, 0) and bool(((factors - 1).abs() > tolerance).any())


class ConvArguments(nn.Module):
    """Base of the convolution layers: what ``ConvModule`` and others read of a ``Conv2d``.

    It is no ``Conv2d`` by class: code that re-initialises every ``Conv2d`` by its two-dimensional fan
    would spoil a stack of kernels.
    """

    transposed = False
    output_padding = (0, 0)
    takes_shared = False  # a second argument, what the convolutions of a block share
    _is_loading = False  # a state dict, whose tensors may become the parameters

    def _init_conv_arguments(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                             stride: int | tuple[int, int], padding: int | str | tuple[int, int],
                             dilation: int | tuple[int, int], groups: int, padding_mode: str) -> None:
        """Check and keep them; raises a ValueError that names the argument."""
        for name, value in (('groups', groups), ('in_channels', in_channels), ('out_channels', out_channels)):
            check_positive_int(name, value)
            if value % groups:
                raise ValueError(f'{name} must be divisible by groups, but {name}={value} and groups={groups}')
        if padding_mode not in PADDING_MODES:
            raise ValueError(f'padding_mode must be one of {PADDING_MODES}, but is {padding_mode!r}')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.padding_mode = padding_mode
        self.kernel_size = pair('kernel_size', kernel_size, 1)
        self.stride = pair('stride', stride, 1)
        self.dilation = pair('dilation', dilation, 1)
        if isinstance(padding, str):
            if padding not in ('same', 'valid'):
                raise ValueError(f"padding must be an int, two ints, 'same' or 'valid', but is {padding!r}")
            if padding == 'same' and self.stride != (1, 1):
                raise ValueError(f"padding='same' needs stride 1, but stride is {self.stride}")
            self.padding = padding
        else:
            self.padding = pair('padding', padding, 0)

    def _init_bias(self, bias: bool) -> None:
        check_bool('bias', bias)
        if bias:
            self.bias = nn.Parameter(torch.zeros(self.out_channels))
        else:
            self.register_parameter('bias', None)

    def _place(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Move and cast all that is there; raises a ValueError that names the argument."""
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(f'dtype must be None or a floating-point one, e.g. torch.float16, but is {dtype!r}')
        try:
            device = None if device is None else torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"device must be None or one of torch's, e.g. 'cuda:0', but is {device!r}") from error
        self.to(device=device, dtype=dtype)

    def _init_kernels(self) -> None:
        """Each kernel of ``weight`` Kaiming-normal by fan-out, as if it were alone; bias 0."""
        for kernel in self.weight if self.weight.dim() == 5 else [self.weight]:
            nn.init.kaiming_normal_(kernel, mode='fan_out', nonlinearity='relu')
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def __setattr__(self, name: str, value: object) -> None:
        """As of any module; but a stranger's folding of a norm is refused where it spoils the layer.

        Such as torch's ``fuse_conv_bn_eval`` and mmcv's ``efficient_conv_bn_eval`` take ``weight`` for a kernel whose
        first dimension is that of the outputs. The first gives it another shape, sets a bias that there was not, or
        gives each output another scale. What fills the parameters in place, or builds a static convolution of them,
        cannot be told from what may do so.
        """
        own = vars(self).get('_parameters', {})
        is_folded = isinstance(value, nn.Parameter) and name in ('weight', 'bias') and name in own \
            and not self._is_loading \
            and (getattr(own[name], 'shape', None) != value.shape
                 or name == 'weight' and len(value) == self.out_channels and _is_scaled(own[name], value))
        function = getattr(value, 'func', None) if name == 'forward' else None
        is_folded_on_the_fly = 'conv_bn_eval' in getattr(function, '__name__', '')
        if is_folded_on_the_fly or is_folded and hasattr(self, 'weight') and not self._is_scaled_by_weight():
            raise ValueError(
                f'{name} of {type(self).__name__} cannot be set so: a norm that is folded into its weight as into a '
                'static kernel gives another function. Use its own method fuse_batch_norm(norm), or '
                'dynconv_mm.compat.fuse_conv_bn.fuse_conv_bn(model) for all of a model, and leave '
                "mmcv's efficient_conv_bn_eval out. To give it another weight, use load_state_dict")
        super().__setattr__(name, value)

    def _load_from_state_dict(self, *args) -> None:
        self._is_loading = True
        try:
            super()._load_from_state_dict(*args)
        finally:
            del self._is_loading

    def _is_scaled_by_weight(self) -> bool:
        """Whether scaling ``weight`` along its first dimension scales the outputs."""
        return self.weight.dim() == 4

    def fuse_batch_norm(self, norm: nn.Module) -> bool:
        """Fold a batch norm behind the layer, by its running statistics, into the layer's own kernels and bias.

        Args:
            norm (Module): the batch norm; it stays as it is.

        Returns:
            bool: False where that cannot be done and the layer stays as it is: it has no kernels of its own, hooks,
            or a forward that is none of this package.
        """
        if not self._takes_batch_norm():
            return False
        for holder in self._kernel_holders():
            weight, bias = fuse_conv_bn_weights(
                holder.weight, self.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
                transpose=holder.weight.dim() == 5)  # of n kernels the output channels are the second dimension
            holder.register_parameter('weight', weight)
        self.register_parameter('bias', bias)
        return True

    def _takes_batch_norm(self, *others: nn.Module) -> bool:
        """Whether a norm can be folded into what :meth:`_kernel_holders` returns, and no hooks on these or ``others``,
        which go with it, are lost."""
        holders = self._kernel_holders()
        own_forward = type(self).forward.__module__.split('.')[0] != __name__.split('.')[0]
        return bool(holders) and not own_forward and all(is_plain(module) for module in (self, *holders, *others)) \
            and all('weight' in holder._parameters for holder in holders)

    def _kernel_holders(self) -> list[nn.Module]:
        """The modules whose ``weight``, all of them scaled by output channels, scale the output but for the bias."""
        return [self] if hasattr(self, 'weight') else []

    def _refuse_shared(self) -> None:
        """Raise a ValueError: there is a second argument."""
        raise ValueError(f'{type(self).__name__} takes features alone, but was called with a second argument, which is '
                         "for layers that share their attention's input in a block, CondConv2d and WeightNetConv2d")

    def _pad(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Features padded where the convolution itself cannot, and the padding left for the convolution."""
        if self.padding == 'valid':
            return x, (0, 0)
        if self.padding == 'same':
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size)]
            (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in total)
        else:
            top, left = bottom, right = self.padding
        if self.padding_mode == 'zeros':
            if (top, left) == (bottom, right):
                return x, (top, left)
            return F.pad(x, (left, right, top, bottom)), (0, 0)
        return F.pad(x, (left, right, top, bottom), mode=self.padding_mode), (0, 0)

    def _apply(self, fn, *args, **kwargs):
        return super()._apply(by_kernel(fn), *args, **kwargs)

    def extra_repr(self) -> str:
        """As of ``Conv2d``: what differs from the default."""
        parts = [f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, '
                 f'stride={self.stride}']
        defaults = dict(padding=(0, 0), dilation=(1, 1), groups=1, padding_mode='zeros')
        parts += [f'{name}={getattr(self, name)!r}' for name, default in defaults.items()
                  if getattr(self, name) != default]
        if self.bias is None:
            parts.append('bias=False')
        return ', '.join(parts)
