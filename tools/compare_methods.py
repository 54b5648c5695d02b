#!/usr/bin/env python3
"""Write docs/comparison.md: parameters and multiply-adds of each method, the papers' figures beside ours."""
from __future__ import annotations

import functools
import math

from paper_tables import ROOT, Figure, build, load_config, measure, number, table, update_page

PAGE = ROOT / 'docs' / 'comparison.md'
MADDS_TOLERANCE = 0.01  # relative; what is further off needs a note

# method -> its config, or None for the static network; and the plugin behind the last convolution of a block
METHODS = {
    'static': (None, None),
    'CondConv (8×)': ('condconv/condconv8x-{}_8xb32_in1k.py', None),
    'DyConv (4×)': ('dyconv/dyconv4x-{}_8xb32_in1k.py', None),
    'DCD': ('dcd/dcd-{}_8xb32_in1k.py', None),
    **{f'ODConv ({kernel_num}×)': (f'odconv/odconv{kernel_num}x-{{}}_8xb32_in1k.py', None)
       for kernel_num in (1, 2, 3, 4, 8)},
    'SE': (None, 'SELayer'),
    'CBAM': (None, 'CBAM'),
    'ECA': (None, 'ECALayer'),
    'SE, ODConv (4×)': ('odconv/odconv4x-{}_8xb32_in1k.py', 'SELayer'),
}
# network -> its name in the names of configs
NETWORKS = {
    'ResNet18': 'resnet18',
    'ResNet50': 'resnet50',
    'ResNet101': 'resnet101',
    **{f'MobileNetV2 ({width}×)': f'mobilenet-v2-w{width * 100:03.0f}' for width in (1.0, 0.75, 0.5)},
}
ODCONV_PAPER = {  # ODConv (ICLR 2022), Tables 1 to 3, 6 and 14
    'ResNet18': {
        'static': Figure(11.69, 1814), 'CondConv (8×)': Figure(81.35, 1894), 'DyConv (4×)': Figure(45.47, 1861),
        'DCD': Figure(14.70, 1841), 'ODConv (1×)': Figure(11.94, 1838), 'ODConv (2×)': Figure(22.93, 1872),
        'ODConv (3×)': Figure(33.92, 1894), 'ODConv (4×)': Figure(44.90, 1916), 'ODConv (8×)': Figure(88.84, 2006),
        'SE': Figure(11.78, 1816), 'CBAM': Figure(11.78, 1818), 'ECA': Figure(11.69, 1816),
        'SE, ODConv (4×)': Figure(44.99, 1918)},
    'ResNet50': {
        'static': Figure(25.56, 3858), 'CondConv (8×)': Figure(129.86, 3978), 'DyConv (4×)': Figure(100.88, 3965),
        'DCD': Figure(29.84, 3944), 'ODConv (1×)': Figure(28.64, 3916), 'ODConv (4×)': Figure(90.67, 4080),
        'SE': Figure(28.07, 3872), 'CBAM': Figure(28.07, 3886), 'ECA': Figure(25.56, 3870)},
    'ResNet101': {
        'static': Figure(44.55, 7570), 'ODConv (1×)': Figure(50.82, 7675), 'ODConv (2×)': Figure(90.44, 7802),
        'SE': Figure(49.29, 7593), 'CBAM': Figure(49.30, 7617), 'ECA': Figure(44.55, 7590)},
    'MobileNetV2 (1.0×)': {
        'static': Figure(3.50, 300.8), 'CondConv (8×)': Figure(22.88, 318.1), 'DyConv (4×)': Figure(12.40, 317.1),
        'DCD': Figure(5.72, 318.4), 'ODConv (1×)': Figure(4.94, 311.8), 'ODConv (4×)': Figure(11.52, 327.1)},
    'MobileNetV2 (0.75×)': {
        'static': Figure(2.64, 209.1), 'CondConv (8×)': Figure(17.51, 223.9), 'DyConv (4×)': Figure(7.95, 220.1),
        'DCD': Figure(4.08, 222.9), 'ODConv (1×)': Figure(3.51, 217.1), 'ODConv (4×)': Figure(7.50, 226.3)},
    'MobileNetV2 (0.5×)': {
        'static': Figure(2.00, 97.1), 'CondConv (8×)': Figure(13.61, 110.0), 'DyConv (4×)': Figure(4.57, 103.2),
        'DCD': Figure(3.06, 105.6), 'ODConv (1×)': Figure(2.43, 101.8), 'ODConv (4×)': Figure(4.44, 106.4)},
}
DCD_PAPER = {  # DCD (ICLR 2021), Table 4; of the ResNets without the classifier's parameters
    'ResNet18': {'static': Figure(11.1, 1810), 'DyConv (4×)': Figure(42.7, 1850), 'DCD': Figure(14.0, 1830)},
    'ResNet50': {'static': Figure(23.5, 3800), 'DCD': Figure(30.7, 3900)},
    'MobileNetV2 (1.0×)': {
        'static': Figure(3.5, 300.0), 'CondConv (8×)': Figure(27.5, 329.0), 'DyConv (4×)': Figure(11.1, 312.9),
        'DCD': Figure(5.5, 326.0)},
    'MobileNetV2 (0.5×)': {
        'static': Figure(2.0, 97.0), 'CondConv (8×)': Figure(15.5, 113.0), 'DyConv (4×)': Figure(4.0, 101.4),
        'DCD': Figure(3.1, 104.8)},
}
PARAMS_NOTES = {
    ('MobileNetV2 (0.5×)', 'static'): 'the papers print 2.00M and 2.0M; the network of their MAdds, with 1280 last '
                                      'channels and 1000 classes, has 1.97M',
    ('MobileNetV2 (1.0×)', 'ODConv (4×)'): 'the paper has one more in the last digit of its parameters',
}
MADDS_NOTES = {
    ('ResNet50', 'DCD'): 'the residual is counted in its cheapest order, which the papers do not say; the DCD paper '
                         'has 3.9G',
    ('MobileNetV2 (1.0×)', 'CondConv (8×)'): "mixing 8 kernels takes 8/7 of the parameters that CondConv adds, which "
                                             "is the paper's figure on both ResNets and at 0.5×; its figure here is "
                                             'below that, and its text does not say how it counts CondConv',
    ('MobileNetV2 (1.0×)', 'DCD'): "the ODConv paper's figure is below that of DCD's authors, 326.0M, from which ours "
                                   'is 0.8% off',
    ('MobileNetV2 (0.75×)', 'DCD'): "as at 1.0×, where DCD's authors count more than the ODConv paper; they do not "
                                    'report 0.75×',
}

INTRODUCTION = """\
# Methods side by side

Written by `python tools/compare_methods.py`; a test checks that it is up to date. Parameters (Params) in millions, of
the whole classifier; multiply-adds (MAdds) in millions, for an image of 224 × 224.

"ODConv paper" is Tables 1 to 3, 6 and 14 of [ODConv](https://openreview.net/forum?id=DmpCfq6Mg39). Our parameters agree
with it to the last digit, rounded or cut off, and our MAdds within 1%; where they do not, a note says why. "off" is how
far our MAdds are from it.

"DCD paper" is Table 4 of [DCD](https://arxiv.org/abs/2103.08756), which counts ResNets without the classifier and cuts
digits off. Its DCD rows are of the networks here, but for the parameters of those in MobileNetV2 1.0× and ResNet50 (the
released code and the ODConv paper have 5.72M and 29.84M); its CondConv and DyConv rows are quoted from the papers of
these methods, which build other networks.

MAdds are counted by the papers' equations (`dynconv_mm.analysis.count_madds`): ODConv by its Eq. 3 (one kernel) and
4, with the width of the hidden vector for c_in / r; DyConv and CondConv as attention plus n·|W| for adding up the
kernels; DCD by its Sections 3.3 and 3.4, the branch plus Λ by min(|W|, hw·C) plus PΦQᵀ in the cheapest order, added
to the kernel or applied to the features; SE, CBAM and ECA (behind the last convolution of each block) as averages,
FCs or convolutions, and scaling. ResNets with bottlenecks are counted with the stride in the first 1×1
convolution (`style='caffe'`), as their static figures tell (3.858G; with `style='pytorch'`, the default here,
4.089G).
"""


def measure_config(cfg) -> Figure:
    """The model of a config, ResNets as :data:`INTRODUCTION` says."""
    if 'ResNet' in str(cfg.model.backbone.type):
        cfg.model.backbone.style = 'caffe'
    return measure(build(cfg))


def measure_network(network: str, method: str) -> Figure:
    """Our figures."""
    from mmengine.config import ConfigDict

    from dynconv_mm.models.backbones import MobileNetV2, ResNet
    config, plugin = METHODS[method]
    cfg = load_config((config or METHODS['ODConv (1×)'][0]).format(NETWORKS[network]))
    backbone = cfg.model.backbone
    if config is None:
        shape = {name: backbone[name] for name in ('depth', 'widen_factor') if name in backbone}
        cfg.model.backbone = backbone = ConfigDict(shape, type=ResNet if 'depth' in shape else MobileNetV2)
    if plugin is not None:
        last = 2 if backbone.depth < 50 else 3
        backbone.plugins = [dict(cfg=dict(type=plugin), position=f'after_conv{last}')]
    return measure_config(cfg)


def params_agree(ours: Figure, paper: Figure, digits: int) -> bool:
    """Whether the paper's parameters are ours, rounded or cut off."""
    return paper.params in (round(ours.params, digits), math.floor(ours.params * 10**digits) / 10**digits)


def madds_agree(ours: Figure, paper: Figure) -> bool:
    return abs(ours.madds / paper.madds - 1) <= MADDS_TOLERANCE


def network_section(network: str, ours: dict[str, Figure]) -> str:
    """The table of a network and the notes on it.

    Raises:
        SystemExit: a figure does not agree with the ODConv paper's and no note says why, or it does, and one does.
    """
    rows, notes = [], []
    for method, figure in ours.items():
        paper, dcd = ODCONV_PAPER[network][method], DCD_PAPER.get(network, {}).get(method)
        for what, agrees, reasons in (
                ('params', params_agree(figure, paper, 2), PARAMS_NOTES),
                ('madds', madds_agree(figure, paper), MADDS_NOTES)):
            reason = reasons.get((network, method))
            if agrees != (reason is None):
                raise SystemExit(f'compare_methods: {method} on {network} has {getattr(figure, what):.3f}M {what}, the '
                                 f'paper {getattr(paper, what)}M: '
                                 + (f'say why in {what.upper()}_NOTES' if reason is None else 'this needs no reason'))
            if reason is not None:
                notes.append(f'{method}: {reason}.')
        digits = 1 if figure.madds < 1000 else 0
        rows.append([method, number(paper.params, 2), number(dcd and dcd.params, 1), number(figure.params, 2),
                     number(paper.madds, digits), number(dcd and dcd.madds, digits), number(figure.madds, digits),
                     f'{figure.madds / paper.madds - 1:+.1%}'])
    header = ['method', 'Params, ODConv paper', 'DCD paper', 'ours', 'MAdds, ODConv paper', 'DCD paper', 'ours', 'off']
    return f'## {network}\n\n{table(header, rows)}' + ''.join(f'\n{note}\n' for note in notes)


# DCD's ablations: model -> rows of (what, the paper's figures, arguments of the backbone)

STATIC = dict(fusion=None, channel_attention=False)
RESIDUAL = dict(channel_attention=False)
PW, DW = dict(dynamic_layers=('pointwise', )), dict(dynamic_layers=('depthwise', ))
PW_DW = dict(dynamic_layers=('pointwise', 'depthwise'))
ABLATIONS = {
    'mobilenet-v2-w050': [
        ('1a: W₀', Figure(2.0, 97.0), STATIC),
        ('1a: ΛW₀', Figure(2.4, 97.4), dict(fusion=None)),
        ('1a: W₀ + PΦQᵀ', Figure(2.7, 104.4), RESIDUAL),
        ('1a: ΛW₀ + PΦQᵀ', Figure(2.9, 104.6), {}),
        *((f'2: L × {multiplier}', Figure(*figure), dict(latent_multiplier=multiplier)) for multiplier, figure in (
            (0.25, (2.4, 99.8)), (0.5, (2.5, 101.3)), (0.75, (2.6, 102.9)), (1.0, (2.9, 104.6)))),
        *((f'3a: W₀ + PΦQᵀ, B = {blocks}', Figure(*figure), dict(RESIDUAL, blocks=blocks)) for blocks, figure in (
            (1, (2.7, 104.4)), (2, (2.6, 101.0)), (4, (2.5, 99.1)), (8, (2.5, 98.5)))),
        *((f'3a: ΛW₀ + PΦQᵀ, B = {blocks}', Figure(*figure), dict(blocks=blocks)) for blocks, figure in (
            (1, (2.9, 104.6)), (2, (2.8, 101.3)), (4, (2.7, 99.4)), (8, (2.7, 98.8)))),
        ('3b: DW', Figure(2.4, 97.5), DW),
        ('3b: PW', Figure(2.9, 104.6), PW),
        ('3b: CLS', Figure(2.2, 97.2), dict(STATIC, classifier=True)),
        ('3b: DW, CLS', Figure(2.6, 97.7), dict(DW, classifier=True)),
        ('3b: DW, PW', Figure(3.3, 105.1), PW_DW),
        ('3b: PW, CLS', Figure(3.1, 104.8), dict(PW, classifier=True)),
        ('3b: DW, PW, CLS', Figure(3.5, 105.3), dict(PW_DW, classifier=True)),
    ],
    'resnet18': [
        ('1b: W₀', Figure(11.1, 1810), STATIC),
        ('1b: ΛW₀', Figure(11.7, 1810), dict(fusion=None)),
        ('1b: W₀ + PΦQᵀ', Figure(13.6, 1830), RESIDUAL),
        ('1b: ΛW₀ + PΦQᵀ', Figure(14.0, 1830), {}),
    ],
}
# rows in which the released build does not agree with the paper, and the notes below that say why
EXCEPTIONS = {
    '1a: ΛW₀': 'MAdds', '3a: W₀ + PΦQᵀ, B = 2': 'MAdds', '3a: ΛW₀ + PΦQᵀ, B = 2': 'MAdds',
    '3b: DW': 'DW, MAdds', '3b: DW, CLS': 'DW, MAdds', '3b: DW, PW': 'DW, MAdds', '3b: DW, PW, CLS': 'DW, MAdds',
    '3b: CLS': 'CLS',
    '1b: ΛW₀': 'ResNet18', '1b: W₀ + PΦQᵀ': 'ResNet18',
}
RESNET18_CLASSIFIER = (512 + 1) * 1000 / 1e6
JOINT_ROW = ('5.2: joint fusion (Eq. 9)', None, dict(variant='paper', fusion='joint'))
ABLATION_TEXT = """\
## DCD's ablations

Tables 1 to 3 of the DCD paper, beside the same switches of `DCDMobileNetV2(widen_factor=0.5)` and
`DCDResNet(depth=18)` in the released build (the default) and in the paper's own (`variant='paper'`, Eq. 5 to 9 as
printed). Unless CLS is named, the classifier is static; ResNet18's parameters are without it. The released build agrees
with the paper, parameters to the printed digit, rounded or cut off, and MAdds within 1%, but for the rows that name a
note below.

"""
ABLATION_NOTES = """\
What the paper leaves open, and what its own figures say:

- **MobileNetV2.** The released build's sizes (four pooled pixels where a convolution expands, a gate in the branch,
  the released L) give the parameters of every row of Tables 1a, 2 and 3a to the printed digit, if the width s of the
  branch follows the multiplied L, but neither B nor the absence of Φ, and each block has the L of C / B channels. The
  text's own rules (3.2, 3.4: L from C, r = 8, one pooled pixel) do not; so the tables were counted with the released
  build.
- **L.** 3.2 gives L as ⌊C / 2^⌊log₂ √C⌋⌋ and as "dividing C by 2 repeatedly until it is less than √C", which differ
  (C = 96: 12 and 6), and does not say which C where C_in ≠ C_out. `variant='paper'` takes the formula, with C_in.
- **MAdds.** The released batch norms around Φ cannot be part of W(x); as in the paper, their residual is counted as
  if it were PΦQᵀ. Whether W(x) is built or the features go through Q, Φ and P, the paper does not say; ours takes the
  cheaper. The paper's rows with Λ alone or in depthwise convolutions grow by no more than the FCs of the branch, so
  it counts neither the pooling nor Λ's products (Λ alone: 97.4M; with them 99.2M); ours does, as the ODConv paper
  does.
- **DW.** Eq. 8 with the branch of 3.4 adds 0.31M, the paper 0.4M; the sizes of this branch are not given and were not
  released.
- **CLS.** The released classifier adds 0.18M (2.15M in all), the paper 0.2M.
- **ResNet18.** The full model agrees with the released one. With Λ or Φ alone the paper adds 0.6M and 2.5M, ours 1.5M
  and 2.6M: the released branch sees four pixels and is 4·C_in / 16 wide; alone, Λ may have had a smaller one.
- **Joint fusion** (Eq. 9): the paper gives its accuracy (71.3, against 73.1 of channel fusion alone), but no size.
"""


@functools.cache
def measure_ablation(network: str, classifier: bool = False, **arguments) -> Figure:
    """A network with other arguments of its backbone, and a static classifier or DCD's."""
    cfg = load_config(f'dcd/dcd-{network}_8xb32_in1k.py')
    if not classifier:
        cfg.model.head.type = 'LinearClsHead'
        cfg.model.head.pop('dropout', None)
    cfg.model.backbone.update(arguments)
    return measure_config(cfg)


def ablation_section() -> str:
    """DCD's Tables 1 to 3, beside both builds.

    Raises:
        SystemExit: the released build does not agree with the paper in a row that is no exception, or does in one.
    """
    header = ['row', 'see', 'Params, paper', 'released build', 'paper build', 'MAdds, paper', 'released build',
              'paper build']
    text = ABLATION_TEXT
    for network, rows in ABLATIONS.items():
        lines = []
        for what, paper, arguments in [*rows, *([JOINT_ROW] if network == 'resnet18' else [])]:
            builds = [None if 'variant' in arguments else measure_ablation(network, **arguments),
                      measure_ablation(network, **{**arguments, 'variant': 'paper'})]
            if network == 'resnet18':
                builds = [figure and figure._replace(params=figure.params - RESNET18_CLASSIFIER) for figure in builds]
            if paper is not None:
                agrees = params_agree(builds[0], paper, 1) and madds_agree(builds[0], paper)
                if agrees != (what not in EXCEPTIONS):
                    raise SystemExit(f'compare_methods: row {what!r} of DCD has {builds[0]}, the paper {paper}: '
                                     + ('this is no exception' if agrees else 'say why in EXCEPTIONS'))
            digits = 1 if network != 'resnet18' else 0
            lines.append([what, EXCEPTIONS.get(what, ''),
                          number(paper and paper.params, 1), *(number(ours and ours.params, 2) for ours in builds),
                          *(number(figure and figure.madds, digits) for figure in (paper, *builds))])
        title = 'MobileNetV2 (0.5×)' if network != 'resnet18' else 'ResNet18'
        text += f'### {title}\n\n{table(header, lines, text_columns=2)}\n'
    return text + ABLATION_NOTES


def render() -> str:
    """The page."""
    from rich.progress import track
    sections = [INTRODUCTION]
    for network in track(NETWORKS, 'counting'):
        sections.append(network_section(network, {method: measure_network(network, method) for method in METHODS
                                                  if method in ODCONV_PAPER[network]}))
    return '\n'.join([*sections, ablation_section()])


def main(argv: list[str] | None = None) -> None:
    update_page(PAGE, render, __doc__, argv)


if __name__ == '__main__':
    main()
