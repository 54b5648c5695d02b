"""The networks of KernelWarehouse (Li, Yao: ICML 2024, https://arxiv.org/abs/2406.07879)."""
from __future__ import annotations

from mmengine.logging import print_log
from mmengine.registry import MODELS

from ...layers.conv_arguments import check_bool
from ...layers.kernel_warehouse import WarehouseLayer, build_warehouses
from ...layers.temperature import check_temperature
from .base import ConvPlace, batch_norm_cfg
from .mobilenet_v2 import MobileNetV2
from .resnet import ResNet, basic_convs


class KWRule:
    """Convolutions are :class:`KWConv2d`, which share the warehouses of their stage.

    Of frozen stages those cells are frozen that no layer behind them uses; the log says which.

    Args:
        cell_num_ratio, cell_in_ratio, cell_out_ratio, nonlocal_basis_ratio, reduction, min_channels, temperature: as of
            :class:`KWConv2d`.
        attention_norm_cfg (dict, optional): ``norm_cfg`` of the attentions. Default: the network's where that is a
            batch norm, else BN.

    Raises:
        ValueError: as of :class:`KWConv2d` and :func:`build_warehouses`.
    """

    def __init__(self, *args, cell_num_ratio: float = 1., cell_in_ratio: float = 1., cell_out_ratio: float = 1.,
                 nonlocal_basis_ratio: float = 1., reduction: float = 1 / 16, min_channels: int = 16,
                 temperature: float = 0., attention_norm_cfg: dict | None = None, **kwargs) -> None:
        check_temperature(cell_num_ratio, 'cell_num_ratio')
        self.kw_cfg = dict(type='KWConv2d', reduction=reduction, min_channels=min_channels, temperature=temperature)
        self.ratios = dict(cell_num_ratio=cell_num_ratio, cell_in_ratio=cell_in_ratio, cell_out_ratio=cell_out_ratio,
                           nonlocal_basis_ratio=nonlocal_basis_ratio)
        self.attention_norm_cfg = attention_norm_cfg
        super().__init__(*args, **kwargs)
        warehouses = build_warehouses(self)
        self._freeze_stages()
        if self.frozen_stages >= 0:
            by_frozen, by_learning = self._warehouses_by_users()
            frozen, shared = (', '.join(warehouses.names[index] for index in sorted(indices)) or 'none'
                              for indices in (by_frozen - by_learning, by_frozen & by_learning))
            print_log(f'frozen_stages={self.frozen_stages} of {type(self).__name__}: warehouses whose cells are '
                      f'frozen: {frozen}; whose cells learn, as layers behind the frozen stages use them too: {shared}',
                      'current')

    def warehouse_cfg(self, warehouse: str, **ratios: float) -> dict:
        """The ``conv_cfg`` of a layer of that warehouse, whose ratios are the network's unless there are some."""
        norm_cfg = batch_norm_cfg(self.norm_cfg) if self.attention_norm_cfg is None else self.attention_norm_cfg
        return dict(self.kw_cfg, warehouse=warehouse, norm_cfg=norm_cfg, **(ratios or self.ratios))

    def _freeze_stages(self) -> None:
        """As of any backbone, and the cells that frozen layers alone use."""
        super()._freeze_stages()
        if self.frozen_stages < 0 or not hasattr(self, 'warehouse_manager'):
            return
        by_frozen, by_learning = self._warehouses_by_users()
        for index in by_frozen - by_learning:
            self.warehouse_manager.weights[index].requires_grad = False

    def _warehouses_by_users(self) -> tuple[set[int], set[int]]:
        """Indices of the warehouses that layers of frozen stages use, and of those that others use."""
        parts = (*self.stem_modules(), *(getattr(self, name) for name in self.stages[:self.frozen_stages]))
        frozen = {layer for part in parts for layer in part.modules()}
        layers = [layer for layer in self.modules() if isinstance(layer, WarehouseLayer)]
        return ({layer.share.index for layer in layers if layer in frozen},
                {layer.share.index for layer in layers if layer not in frozen})


@MODELS.register_module()
class KWResNet(KWRule, ResNet):
    """ResNet with KernelWarehouse, for mmpretrain and mmdet alike (KernelWarehouse, Table 1).

    Each stage has a warehouse. The first convolution of a stage and its shortcut belong to that of the stage before, as
    does the first one of all in basic blocks; in bottlenecks that is static, and so are the stem and the shortcut of
    the first stage.

    Takes the arguments of :class:`~dynconv_mm.models.backbones.resnet.ResNet` (``depth``, ``out_indices``,
    ``frozen_stages``, ``norm_eval``, …) and, by name, those of :class:`KWRule` (``cell_num_ratio``, …).

    Example:
        >>> backbone = KWResNet(depth=18, out_indices=(0, 1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """Of the warehouse of its stage or of the one before."""
        is_first = place.block == 0 and place.role in ('conv1', 'downsample')
        if place.role == 'stem' or is_first and place.stage == 1 \
                and (place.role == 'downsample' or self.arch_settings[self.depth][0] is not basic_convs):
            return self.conv_cfg
        return self.warehouse_cfg(f'stage{max(place.stage - is_first, 1)}')


@MODELS.register_module()
class KWMobileNetV2(KWRule, MobileNetV2):
    """MobileNetV2 with KernelWarehouse, for mmpretrain and mmdet alike (KernelWarehouse, Table 2).

    Warehouses span blocks of equally wide expansions: a stage without its first block and the first block of the next.
    In each, depthwise and 1×1 convolutions have their own; the stem has one to itself, and the last convolution belongs
    to the last 1×1 ones. The ``cell_num_ratio`` of stem and depthwise convolutions is at least 1, and their other
    ratios are 1.

    Args:
        *args, **kwargs: of :class:`~dynconv_mm.models.backbones.mobilenet_v2.MobileNetV2` (``widen_factor``,
            ``out_indices``, …) and, by name, of :class:`KWRule`.
        share_pointwise (bool): whether both 1×1 convolutions of a block share a warehouse. Default: True.
        static_pointwise (int): of so many groups of blocks the 1×1 convolutions are static. Default: 0.

    Example:
        >>> backbone = KWMobileNetV2(out_indices=(1, 2, 4, 7)).eval()
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 24, 16, 16), (1, 32, 8, 8), (1, 96, 4, 4), (1, 1280, 2, 2)]
    """

    def __init__(self, *args, share_pointwise: bool = True, static_pointwise: int = 0, **kwargs) -> None:
        check_bool('share_pointwise', share_pointwise)
        groups = len(self.arch_settings) - 1
        if isinstance(static_pointwise, bool) or static_pointwise not in range(groups + 1):
            raise ValueError(f'static_pointwise must be an int from 0 to {groups}, but is {static_pointwise!r}')
        self.share_pointwise, self.static_pointwise = share_pointwise, static_pointwise
        super().__init__(*args, **kwargs)

    def conv_cfg_at(self, place: ConvPlace) -> dict | None:
        """Of the warehouse of its kind and group of blocks."""
        groups = len(self.arch_settings) - 1
        group = groups if place.role == 'last' else max(place.stage - (place.block == 0), 1)
        if place.role in ('stem', 'depthwise'):
            return self.warehouse_cfg('stem' if place.role == 'stem' else f'depthwise{group}',
                                      cell_num_ratio=max(self.ratios['cell_num_ratio'], 1.))
        if group <= self.static_pointwise:
            return self.conv_cfg
        kind = 'pointwise' if self.share_pointwise else 'expand' if place.role == 'expand' else 'project'
        return self.warehouse_cfg(f'{kind}{group}')
