"""What a row of a paper's table is: the figures as printed, and the network here that they are of."""
from __future__ import annotations

from typing import NamedTuple


class Network(NamedTuple):
    """A network of a config, or of one that differs from it."""

    config: str  # in configs/, without .py, or another package's, such as 'mmpretrain::resnet/resnet50_8xb32_in1k'
    backbone: tuple[tuple[str, object], ...] = ()  # other arguments of the backbone
    head: tuple[tuple[str, object], ...] = ()  # and of the classifier

    @property
    def is_of_the_config(self) -> bool:
        """Whether it is the config's, but for the place of a bottleneck's stride."""
        return {name for name, _ in self.backbone} <= {'style'} and not self.head


class Row(NamedTuple):
    """A row that gives parameters or multiply-adds, and why ours differ where they do."""

    label: str
    params: str | None  # millions, as printed
    madds: str | None  # as printed, with their unit: '1.814G', '300.8M'
    network: Network
    params_why: str | None = None  # a key of the paper's reasons
    madds_why: str | None = None
    beside: Network | None = None  # another build of it, to be shown beside it
    and_classifier_of: Network | None = None  # whose classifier's parameters the paper counts too


class Table(NamedTuple):
    """Rows of one table of a paper, or of some."""

    title: str
    rows: list[Row]
    counted: str = 'all'  # what of the network: a key of what measure() in paper_tables.py returns


class Paper(NamedTuple):
    """What a paper prints, and what is to be said about it."""

    title: str
    introduction: str
    tables: list[Table]
    reasons: dict[str, str]
    conclusion: str = ''


CLASSIFIERS = {
    'ResNet18': 'resnet18', 'ResNet50': 'resnet50', 'ResNet101': 'resnet101',
    'MobileNetV2 (1.0×)': 'mobilenet-v2-w100', 'MobileNetV2 (0.75×)': 'mobilenet-v2-w075',
    'MobileNetV2 (0.5×)': 'mobilenet-v2-w050'}
PREFIXES = {'static': 'static/', **{plugin.upper(): f'static/{plugin}-' for plugin in ('se', 'cbam', 'eca')},
            'CGC': 'cgc/cgc-', 'WeightNet': 'weightnet/weightnet-', 'WE': 'we/we-',
            'CondConv (8×)': 'condconv/condconv8x-', 'DyConv (4×)': 'dyconv/dyconv4x-', 'DCD': 'dcd/dcd-',
            **{f'ODConv ({n}×)': f'odconv/odconv{n}x-' for n in (1, 2, 3, 4, 8)},
            'SE, ODConv (4×)': 'odconv/odconv4x-se-'}


def classifier(network: str, method: str = 'static', build: str = '', **backbone: object) -> Network:
    """A classifier of configs/.

    Args:
        network (str): one of :data:`CLASSIFIERS`.
        method (str): one of :data:`PREFIXES`.
        build (str): what its config's name has behind the network.
        **backbone: other arguments of the backbone.
    """
    return Network(f'{PREFIXES[method]}{CLASSIFIERS[network]}{build}_8xb32_in1k', tuple(backbone.items()))
