"""What the DCDC paper prints: Tables I to VII."""
from __future__ import annotations

from paper_rows import Network, Paper, Row, Table, classifier


def dcdc(depth: int, params: str, madds: str, madds_why: str | None = None, build: str = '',
         options: str = '') -> Row:
    """A DCDC-ResNet, by what the name of its config has behind the network's: arguments of the backbone."""
    return Row(f'DCDC-ResNet-{depth}' + f', `{options}`' * bool(options), params, madds,
               Network(f'dcdc/dcdc-resnet{depth}{build}_8xb32_in1k'), madds_why=madds_why)


def rednet(depth: int, params: str, madds: str, madds_why: str | None = None) -> Row:
    """A RedNet."""
    return Row(f'RedNet-{depth}', params, madds, Network(f'rednet/rednet{depth}_8xb32_in1k'), madds_why=madds_why)


def ddf(depth: int, params: str, madds: str, madds_why: str | None = None) -> Row:
    """A DDF-ResNet."""
    return Row(f'DDF-ResNet-{depth}', params, madds, Network(f'ddf/ddf-resnet{depth}_8xb128-timm_in1k'),
               madds_why=madds_why)


def local_attention() -> list[Row]:
    """The networks whose layers attend to a window."""
    return [
        *(Row(f'LR-Net-{depth}', params, madds, Network(f'lrnet/lrnet{depth}_8xb32-130e_in1k'), params_why, 'LR-Net')
          for depth, params, madds, params_why in ((26, '14.7', '2.6G', None), (50, '23.3', '4.3G', None),
                                                   (101, '42.0', '8.0G', 'LR-Net'))),
        *(Row(f'SA-ResNet-{depth}', params, madds, Network(f'sasa/sa-resnet{depth}_8xb32-130e_in1k'),
              madds_why='operations')
          for depth, params, madds in ((26, '10.3', '2.4G'), (38, '14.1', '3.0G'), (50, '18.0', '3.6G'))),
        *(Row(f'SAN-{depth}', params, madds, Network(f'san/san{depth}_8xb32_in1k'), madds_why='transition')
          for depth, params, madds in ((10, '10.5', '2.2G'), (15, '14.1', '3.0G'), (19, '17.6', '3.8G'))),
    ]


def detectors(name: str, *figures: tuple[str | None, ...]) -> list[Row]:
    """Rows of a detector with the backbones and necks of :data:`CONFIGS`: figures, and reasons."""
    return [Row(f'{NAMES[name]}, {label}', params, madds,
                Network(config.format(name=name)), *why)
            for (label, config), (params, madds, *why) in zip(CONFIGS.items(), figures)]


NAMES = {'retinanet': 'RetinaNet', 'faster-rcnn': 'Faster R-CNN', 'mask-rcnn': 'Mask R-CNN',
         'panoptic-fpn': 'PanopticFPN'}
CONFIGS = {
    'ResNet50': 'static/{name}_r50_fpn_1x_coco',
    'ResNet101': 'static/{name}_r101_fpn_1x_coco',
    'RedNet50': 'rednet/{name}_rednet50_fpn_1x_coco',
    'RedNet50, involution neck': 'rednet/{name}_rednet50_involution-fpn_1x_coco',
    'DCDC-ResNet50': 'dcdc/{name}_dcdc-r50_fpn_1x_coco',
    'DCDC-ResNet50, DCDC neck': 'dcdc/{name}_dcdc-r50_dcdc-fpn_1x_coco',
    'DCDC-ResNet26, DCDC neck': 'dcdc/{name}_dcdc-r26_dcdc-fpn_1x_coco',
}
TABLES = [
    Table('Table I: classifiers', [
        Row('ResNet-26', '13.7', '2.4G', Network('static/resnet26_8xb32-130e_in1k'), madds_why='norms'),
        Row('ResNet-38', '19.6', '3.2G', Network('static/resnet38_8xb32-130e_in1k')),
        Row('ResNet-50', '25.6', '4.1G', Network('static/resnet50_8xb32-130e_in1k')),
        Row('CBAM-ResNet-50', '28.1', '4.1G', classifier('ResNet50', 'CBAM')),
        Row('SENet-50', '28.1', '4.1G', classifier('ResNet50', 'SE')),
        Row('ResNet-101', '44.6', '7.9G', Network('static/resnet101_8xb32-130e_in1k'), madds_why='ResNet-101'),
        Row('CBAM-ResNet-101', '49.3', '7.8G', classifier('ResNet101', 'CBAM')),
        Row('SENet-101', '49.3', '7.8G', classifier('ResNet101', 'SE')),
        Row('ResNeXt-50 (32×4d)', '25.0', '4.3G', Network('mmpretrain::resnext/resnext50-32x4d_8xb32_in1k'),
            madds_why='norms'),
        Row('ResNeXt-101 (32×4d)', '44.2', '8.0G', Network('mmpretrain::resnext/resnext101-32x4d_8xb32_in1k')),
        Row('Res2Net-50 (26w×4s)', '25.7', '4.2G',
            Network('mmpretrain::res2net/res2net50-w26-s8_8xb32_in1k', (('scales', 4), )), madds_why='digits'),
        Row('Res2Net-101 (26w×4s)', '45.2', '8.1G', Network('mmpretrain::res2net/res2net101-w26-s4_8xb32_in1k')),
        rednet(26, '9.23', '1.67G'), rednet(38, '12.4', '2.15G'), rednet(50, '15.54', '2.62G', 'modules'),
        rednet(101, '25.65', '4.6G', 'modules'),
        ddf(50, '16.8', '2.3G'), ddf(101, '28.1', '4.1G', 'digits'),
        *local_attention(),
        dcdc(26, '9.36', '1.71G'), dcdc(38, '12.58', '2.2G'), dcdc(50, '15.8', '2.68G'), dcdc(101, '26.19', '4.71G'),
    ]),
    Table('Table II: other dynamic convolutions', [
        Row('CondConv-50', '104.8', '4.2G', classifier('ResNet50', 'CondConv (8×)'), 'quoted'),
        Row('MDDC-50 (DCD)', '30.7', '3.9G', classifier('ResNet50', 'DCD', style='caffe'), 'quoted', 'quoted'),
        Row('DwCondConv-50', '14.5', '2.3G', Network('condconv/dwcondconv8x-resnet50_8xb128-timm_in1k'),
            madds_why='digits'),
        Row('DwWeightNet-50', '14.4', '2.3G', Network('weightnet/dwweightnet-resnet50_8xb128-timm_in1k'),
            madds_why='digits'),
        ddf(50, '16.8', '2.3G'),
        Row('ODConv-50 (1×)', '28.64', '3.9G', classifier('ResNet50', 'ODConv (1×)', style='caffe')),
    ]),
    Table('Table III: the branches', [
        dcdc(26, '9.26', '1.69G', None, '-lsa', "gsi='none'"),
        dcdc(26, '9.34', '1.72G', None, '-conv-small', "gsi='conv_small'"),
        dcdc(26, '14.32', '2.73G', None, '-conv-large', "gsi='conv_large'"),
        dcdc(26, '9.36', '1.71G'),
    ]),
    Table('Table IV: kernel sizes and width', [
        dcdc(26, '9.36', '1.71G'),
        dcdc(26, '9.39', '1.73G', None, '-lsa5', 'lsa_dw_kernel_size=5'),
        dcdc(26, '9.45', '1.76G', None, '-lsa7', 'lsa_dw_kernel_size=7'),
        dcdc(26, '9.61', '1.71G', None, '-gsi3', 'gsi_kernel_size=3'),
        dcdc(26, '10.12', '1.71G', 'GSI', '-gsi5', 'gsi_kernel_size=5'),
        dcdc(26, '9.46', '1.72G', None, '-ratio15', 'gsi_ratio=1.5'),
        dcdc(26, '9.64', '1.73G', None, '-ratio20', 'gsi_ratio=2.0'),
        dcdc(26, '9.74', '1.78G', None, '-lsa7-ratio20', 'lsa_dw_kernel_size=7, gsi_ratio=2.0'),
        dcdc(26, '21.88', '1.74G', 'GSI', '-gsi7-ratio20', 'gsi_kernel_size=7, gsi_ratio=2.0'),
    ]),
    Table('Table V: detectors', [
        *detectors('retinanet', ('37.7', '239.3G'), ('56.7', '315.4G'), ('27.8', '208.6G'), ('26.3', '197.7G'),
                   ('28.1', '210.0G'), ('26.5', '199.3G'), ('20.2', '179.4G')),
        *detectors('faster-rcnn', ('41.5', '207.1G'), ('60.5', '283.1G'), ('31.6', '176.4G'),
                   ('29.5', '132.0G', None, 'modules'), ('31.9', '177.7G'), ('29.8', '134.4G'), ('23.5', '114.5G')),
    ], 'trainable'),
    Table('Table VI: instance segmentation', [
        *detectors('mask-rcnn', ('44.2', '260.1G'), ('63.2', '336.2G'), ('34.2', '229.5G'), ('32.2', '185.1G'),
                   ('34.5', '230.8G'), ('32.5', '187.4G'), ('26.1', '167.6G')),
        Row('HTC, ResNet50', '80.0', '441.4G', Network('static/htc_r50_fpn_20e_coco')),
        Row('HTC, ResNet101', '99.0', '517.5G', Network('static/htc_r101_fpn_20e_coco')),
        Row('HTC, ResNeXt-101 (32×4d)', '98.7', '521.2G', Network('static/htc_x101-32x4d_fpn_16xb1-20e_coco')),
        Row('HTC, DCDC-ResNet50, DCDC neck', '68.3', '368.7G', Network('dcdc/htc_dcdc-r50_dcdc-fpn_20e_coco')),
    ], 'trainable'),
    Table('Table VII: panoptic segmentation', detectors(
        'panoptic-fpn', ('46', None), ('64.9', None, 'sum'), ('36', None), ('34', None), ('36.3', None),
        ('34.3', None))),
]
PAPER = Paper(
    'DCDC: Dual Complementary Dynamic Convolution for Image Recognition (2022)',
    '''\
[arxiv.org/abs/2211.06163](https://arxiv.org/abs/2211.06163), which prints multiply-adds as FLOPs. The parameters of
Tables V and VI are those trained with the stem and the first stage frozen, those of Table VII all of them, as the
figures tell. Detectors are counted for 1280 × 800, box heads with 1000 proposals and mask heads with 100. Averages of
DCDC's branches count nothing: the paper does not mention them. ResNet-50 and -101 have their stride in the 3×3
convolutions, but in the rows of DCD and ODConv, where these papers count the other kind.

ResNeXt and Res2Net are mmpretrain's.

Left out, as their attention is not local and no layer here: AA-ResNet (over the whole map) and Axial ResNet-S (along
rows and columns) of Table I; and DyNet-50 of Table II, whose parameters the paper does not print.
''',
    TABLES,
    {
        'quoted': 'the figure is quoted from another paper: the CondConv-50 there is not the one that the ODConv paper '
                  'counts and that is built here (129.86M), and DCD has 29.84M in its released code, too',
        'GSI': "the paper does not say how it counts. Its rows hardly grow with `gsi_kernel_size`, so it seems to "
               "leave out GSI's own convolution, which is counted here",
        'modules': 'the paper seems to use the counter of mmdet 2 and mmcls, which sees modules: norms and activations '
                   "count, but not the application of involution's kernels, which is no module (71M of RedNet-50, and "
                   '1.07G of the neck); ours is the other way round',
        'LR-Net': 'the code of the paper is not public. Bottlenecks 25/16 as wide as those of ResNet and a 1×1 '
                  'convolution behind the sums give the parameters of its LR-Net-26 and -50. No structure of one width '
                  'gives those of -101, too: a block has four times the parameters of one in the stage before, so '
                  'that the 8 blocks between -26 and -50 (8.6M) make 1.00M one of the third stage, but the 17 between '
                  '-50 and -101 (18.7M) 1.10M; here it has 1.02M. Its multiply-adds are some 0.2G above those of this '
                  'structure, and 0.5G for -101',
        'operations': 'half of the operations that the paper of SA-ResNets prints, which counts a product and a sum as '
                      'two. Here the products of queries and relative positions are those of 7 rows and 7 columns; '
                      'those of all 49 positions would be 48M, 64M and 80M more. Softmaxes count nothing',
        'transition': 'the figures are those of a first 1×1 convolution of 64 channels in front of the first pooling '
                      '(154M more); the released network, as here, has it behind',
        'digits': 'the paper prints two digits, to which ours is rounded or cut off',
        'norms': 'that counter gives norms and activations, too, some 20M of ResNet-26 and 40M of ResNeXt-50, and the '
                 'paper prints two digits',
        'ResNet-101': 'the paper itself has 7.8G for this network with CBAM or SE, which add to it',
        'sum': 'the other tables add 19.0M for ResNet101 in place of ResNet50, as here; this one adds 18.9M to a '
               'rounded 46M',
    })
