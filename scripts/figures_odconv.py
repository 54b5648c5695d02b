"""What the ODConv paper prints: Tables 1 to 7, 9, 12, 14 and 16; the others give no sizes."""
from __future__ import annotations

from paper_rows import Network, Paper, Row, Table, classifier

WHY_PARAMS = {
    ('MobileNetV2 (0.5×)', 'static'): 'rounded', ('ResNet18', 'WE'): 'WE', ('ResNet50', 'WE'): 'WE',
    ('ResNet18', 'CGC'): 'CGC', ('ResNet50', 'WeightNet'): 'WeightNet',
}
WHY_MADDS = {
    ('ResNet50', 'DCD'): 'DCD', ('MobileNetV2 (1.0×)', 'DCD'): 'DCD', ('MobileNetV2 (0.75×)', 'DCD'): 'DCD',
    ('MobileNetV2 (1.0×)', 'CondConv (8×)'): 'CondConv',
}


def rows(network: str, figures: dict[str, tuple[str, str]]) -> list[Row]:
    """Rows of one network by several methods, ResNets with the stride in the first 1×1 convolution."""
    style = dict(style='caffe') if network in ('ResNet50', 'ResNet101') else {}
    return [Row(network if method == 'static' else f'{network} + {method}', params, madds,
                classifier(network, method, **style), WHY_PARAMS.get((network, method)),
                WHY_MADDS.get((network, method)))
            for method, (params, madds) in figures.items()]


def resnet18(label: str, params: str, madds: str, kernel_num: int = 1, build: str = '') -> Row:
    """A row of an ablation."""
    return Row(label, params, madds, classifier('ResNet18', f'ODConv ({kernel_num}×)', build))


def attentions(label: str, params: str, madds: str, *names: str) -> Row:
    """A row of Table 7 with some of the attentions."""
    return resnet18(label, params, madds, build='-'.join(('-reduction4', *names)))


STATIC18 = Row('ResNet18', '11.69', '1.814G', classifier('ResNet18'))
DETECTORS = {'Faster R-CNN': 'faster-rcnn', 'Mask R-CNN': 'mask-rcnn'}
BACKBONES = {'ResNet50': 'r50', 'MobileNetV2': 'mobilenet-v2'}
FOLDERS = {'CondConv (8×)': ('condconv', 'condconv'), 'DyConv (4×)': ('dyconv', 'dyconv'), 'DCD': ('dcd', 'dcd'),
           'ODConv (1×)': ('odconv', 'odconv1x'), 'ODConv (4×)': ('odconv', 'odconv4x')}
# of Faster R-CNN, Mask R-CNN and, in brackets, the backbone
TABLE_4 = {
    'ResNet50': {
        'static': ('43.80', '207.07G', '46.45', '260.14G', '23.51', '76.50G'),
        'CondConv (8×)': ('133.75', '207.08G', '136.4', '260.15G', '113.46', '76.51G'),
        'DyConv (4×)': ('119.12', '207.23G', '121.77', '260.30G', '98.83', '76.66G'),
        'DCD': ('48.08', '207.20G', '50.73', '260.27G', '27.79', '76.63G'),
        'ODConv (1×)': ('46.88', '207.18G', '49.53', '260.25G', '26.59', '76.61G'),
        'ODConv (4×)': ('108.91', '207.42G', '111.56', '260.49G', '88.62', '76.85G')},
    'MobileNetV2': {
        'static': ('21.13', '122.58G', '23.78', '175.66G', '2.22', '24.45G'),
        'CondConv (8×)': ('31.54', '122.59G', '34.19', '175.67G', '12.63', '24.46G'),
        'DyConv (4×)': ('30.02', '123.01G', '32.68', '176.09G', '11.12', '24.88G'),
        'DCD': ('23.34', '123.01G', '26.00', '176.09G', '4.44', '24.88G'),
        'ODConv (1×)': ('22.56', '123.00G', '25.22', '176.08G', '3.66', '24.87G'),
        'ODConv (4×)': ('29.14', '123.02G', '31.80', '176.10G', '10.24', '24.89G')},
}
WHY_DETECTOR_PARAMS = {
    **{(name, backbone, 'DCD'): 'classifier' for name in (*DETECTORS, 'in brackets') for backbone in BACKBONES},
    ('Faster R-CNN', 'MobileNetV2', 'DyConv (4×)'): 'sum', ('Mask R-CNN', 'MobileNetV2', 'ODConv (4×)'): 'sum',
}


def detector(name: str, backbone: str, method: str) -> Network:
    """A detector of configs/."""
    stem, network = DETECTORS[name], BACKBONES[backbone]
    folder, prefix = ('static', '') if method == 'static' else FOLDERS[method]
    return Network(f'{folder}/{stem}_{prefix}{"-" if prefix else ""}{network}_fpn_1x_coco')


def table_4() -> list[Table]:
    """The detectors, and the backbones in brackets."""
    pretrained = {'ResNet50': classifier('ResNet50'), 'MobileNetV2': classifier('MobileNetV2 (1.0×)')}
    networks = [(backbone, method, backbone if method == 'static' else f'{backbone} + {method}', figures)
                for backbone, methods in TABLE_4.items() for method, figures in methods.items()]
    tables = [Table(f'Table 4, {name}', [
        Row(label, *figures[2 * place:2 * place + 2], detector(name, backbone, method),
            WHY_DETECTOR_PARAMS.get((name, backbone, method)), and_classifier_of=pretrained[backbone])
        for backbone, method, label, figures in networks]) for place, name in enumerate(DETECTORS)]
    return [*tables, Table('Table 4, the backbones, in brackets', [
        Row(label, *figures[4:], detector('Faster R-CNN', backbone, method),
            WHY_DETECTOR_PARAMS.get(('in brackets', backbone, method)), 'brackets')
        for backbone, method, label, figures in networks], 'backbone')]


TABLES = [
    Table('Tables 1 and 13: MobileNetV2', [
        *rows('MobileNetV2 (1.0×)', {
            'static': ('3.50', '300.8M'), 'CondConv (8×)': ('22.88', '318.1M'), 'DyConv (4×)': ('12.40', '317.1M'),
            'DCD': ('5.72', '318.4M'), 'ODConv (1×)': ('4.94', '311.8M'), 'ODConv (4×)': ('11.52', '327.1M')}),
        *rows('MobileNetV2 (0.75×)', {
            'static': ('2.64', '209.1M'), 'CondConv (8×)': ('17.51', '223.9M'), 'DyConv (4×)': ('7.95', '220.1M'),
            'DCD': ('4.08', '222.9M'), 'ODConv (1×)': ('3.51', '217.1M'), 'ODConv (4×)': ('7.50', '226.3M')}),
        *rows('MobileNetV2 (0.5×)', {
            'static': ('2.00', '97.1M'), 'CondConv (8×)': ('13.61', '110.0M'), 'DyConv (4×)': ('4.57', '103.2M'),
            'DCD': ('3.06', '105.6M'), 'ODConv (1×)': ('2.43', '101.8M'), 'ODConv (4×)': ('4.44', '106.4M')}),
    ]),
    Table('Table 2: ResNet18 and ResNet50', [
        *rows('ResNet18', {
            'static': ('11.69', '1.814G'), 'CondConv (8×)': ('81.35', '1.894G'), 'DyConv (4×)': ('45.47', '1.861G'),
            'DCD': ('14.70', '1.841G'), 'ODConv (1×)': ('11.94', '1.838G'), 'ODConv (4×)': ('44.90', '1.916G'),
            'SE': ('11.78', '1.816G'), 'CBAM': ('11.78', '1.818G'), 'ECA': ('11.69', '1.816G'),
            'CGC': ('11.69', '1.827G'),
            'WeightNet': ('11.93', '1.826G'), 'WE': ('11.90', '1.820G')}),
        *rows('ResNet50', {
            'static': ('25.56', '3.858G'), 'CondConv (8×)': ('129.86', '3.978G'), 'DyConv (4×)': ('100.88', '3.965G'),
            'DCD': ('29.84', '3.944G'), 'ODConv (1×)': ('28.64', '3.916G'), 'ODConv (4×)': ('90.67', '4.080G'),
            'SE': ('28.07', '3.872G'), 'CBAM': ('28.07', '3.886G'), 'ECA': ('25.56', '3.870G'),
            'CGC': ('25.59', '3.877G'),
            'WeightNet': ('30.38', '3.885G'), 'WE': ('28.10', '3.860G')}),
    ]),
    Table('Table 3: ResNet101', rows('ResNet101', {
        'static': ('44.55', '7.570G'), 'SE': ('49.29', '7.593G'), 'CBAM': ('49.30', '7.617G'),
        'ECA': ('44.55', '7.590G'), 'ODConv (1×)': ('50.82', '7.675G'), 'ODConv (2×)': ('90.44', '7.802G')})),
    *table_4(),
    Table('Table 5: the reduction r', [
        STATIC18,
        resnet18('ODConv (1×), r = 1/4', '12.58', '1.839G', build='-reduction4'),
        resnet18('ODConv (1×), r = 1/8', '12.15', '1.838G', build='-reduction8'),
        resnet18('ODConv (1×), r = 1/16', '11.94', '1.838G')]),
    Table('Table 6: the number of kernels', [STATIC18, *(
        resnet18(f'ODConv ({n}×)', *figures, kernel_num=n) for n, figures in (
            (1, ('11.94', '1.838G')), (2, ('22.93', '1.872G')), (3, ('33.92', '1.894G')), (4, ('44.90', '1.916G')),
            (8, ('88.84', '2.006G'))))]),
    Table('Table 7: the attentions, r = 1/4', [
        STATIC18,
        attentions('α_s', '11.98', '1.827G', 'spatial'),
        attentions('α_c', '12.26', '1.827G', 'channel'),
        attentions('α_f', '12.28', '1.827G', 'filter'),
        attentions('α_s, α_c', '12.27', '1.827G', 'spatial', 'channel'),
        attentions('α_s, α_f', '12.29', '1.827G', 'spatial', 'filter'),
        attentions('α_c, α_f', '12.57', '1.829G', 'channel', 'filter'),
        attentions('α_s, α_c, α_f', '12.58', '1.839G'),
        resnet18('α_s, α_c, α_f, α_w (4×)', '45.54', '1.953G', 4, '-reduction4')._replace(madds_why='products'),
    ]),
    Table('Table 9: in some layers only, MobileNetV2 (0.5×)', [
        Row('MobileNetV2 (0.5×)', '2.00', '97.1M', classifier('MobileNetV2 (0.5×)'), 'rounded'),
        *(Row(f'ODConv (1×), {label}', params, madds, classifier('MobileNetV2 (0.5×)', 'ODConv (1×)', build), *why)
          for label, build, params, madds, *why in (
              ('all but the first', '', '2.43', '101.8M'), ('1×1', '-1x1', '2.26', '100.2M'),
              ('3×3', '-3x3', '2.17', '99.1M', 'added'),
              ('the last 6 blocks', '-last-6-blocks', '2.31', '99.1M', 'added')))]),
    Table('Table 12: attentions shared by the kernels, or not', [
        STATIC18, resnet18('ODConv (4×), shared', '44.90', '1.916G', 4),
        resnet18('ODConv (4×), not shared', '45.43', '1.950G', 4, '-unshared')]),
    Table('Table 14: with SE', [
        STATIC18, Row('ResNet18 + SE', '11.78', '1.816G', classifier('ResNet18', 'SE')),
        Row('ResNet18 + SE, ODConv (4×)', '44.99', '1.918G', classifier('ResNet18', 'SE, ODConv (4×)'))]),
    Table('Table 16: pooling before the attentions, r = 1/4', [
        STATIC18,
        resnet18('ODConv (1×), pooled to 1×1', '12.58', '1.839G', build='-reduction4'),
        resnet18('ODConv (1×), pooled to 3×3', '14.85', '1.842G', build='-reduction4-pool3')]),
]
PAPER = Paper(
    'ODConv: Omni-Dimensional Dynamic Convolution (ICLR 2022)',
    '''\
[openreview.net/forum?id=DmpCfq6Mg39](https://openreview.net/forum?id=DmpCfq6Mg39). ResNets with bottlenecks are counted
with the stride in the first 1×1 convolution (`style='caffe'`), as their static figures tell (3.858G; with
`style='pytorch'`, the default here, 4.089G). SE, CBAM and ECA stand behind the last convolution of each block. In
Table 4, the parameters are all those of the detector, frozen ones too, and those of the static classifier of its
backbone (2.05M of ResNet50, 1.28M of MobileNetV2), as the paper's figures tell; multiply-adds are for 1280 × 800, and
ResNet50 has its stride in the 3×3 convolutions, as in mmdet. mmdet 2 counted norms and activations too: hence the 0.3%.

Left out: Tables 8 and 17, of speed (`tools/analysis_tools/speed_tables.py`), and 10, 11 and 15, which give accuracies
alone; the rows of these are configs with their results.
''',
    TABLES,
    {
        'rounded': 'the network of the printed multiply-adds, with 1280 last channels and 1000 classes, has 1.97M; the '
                   'paper rounds it to 2.0M and prints a further digit',
        'added': 'what ODConv adds here, 0.17M and 0.31M, the paper adds to the rounded 2.00M, and in the other rows '
                 'of the table to 1.97M',
        'sum': "the last digit of the paper's sums: with the static detector and backbone, its own brackets give "
               '30.03M for DyConv; in the other one, rounding adds up',
        'classifier': "the paper takes no more than a static classifier's parameters off the network that it "
                      "pre-trains, but DCD's own classifier has more, 0.24M on ResNet50 and 0.18M on MobileNetV2, "
                      'which no detector has',
        'products': 'Eq. 4 gives 1.916G. The paper seems to count the products of attentions that are not shared '
                    '(1.950G in Table 12), though its parameters are of shared ones',
        'DCD': "the residual is counted in its cheapest order, which the papers do not say. On MobileNetV2 the ODConv "
               "paper's figures are below those of DCD's authors, who print 326.0M for 1.0×, from which ours is 0.8% "
               "off, and do not report 0.75×",
        'CondConv': "mixing 8 kernels takes 8/7 of the parameters that CondConv adds, which is the paper's figure on "
                    'both ResNets and on MobileNetV2 0.5×; its figure here is below that, and its text does not say '
                    'how it counts CondConv',
        'CGC': "the printed figure is that of the static network, without the norms and FCs that the released layer "
               'adds; on ResNet50 it has them',
        'WeightNet': "the paper does not say which convolutions it replaced. Of what was tried with the authors' "
                     'M = G = 2, all but the stem, the shortcuts with FCs of their own, is nearest: with those of the '
                     'block 30.22M (ResNet18 11.92M), without the shortcuts 29.86M (11.88M)',
        'WE': 'the row is quoted from the paper of weight excitation, whose networks are not public. Of what was tried '
              '(3×3 convolutions alone, without the stem or the shortcuts, FCs without biases), all convolutions, and '
              'FCs with biases, is nearest',
        'brackets': 'the paper does not say at which size it counts the backbones alone. What it prints for '
                    'MobileNetV2 is four times what 1280 × 800 takes, and more than neck and heads leave of its own '
                    'total; its totals agree with ours, in which these backbones are counted at 1280 × 800',
    })
