"""What the DCD paper prints: Tables 1 to 4."""
from __future__ import annotations

from paper_rows import Network, Paper, Row, Table, classifier

HALF, R18, R50, FULL = 'MobileNetV2 (0.5×)', 'ResNet18', 'ResNet50', 'MobileNetV2 (1.0×)'


def ablation(network: str, build: str | None, label: str, params: str | None, madds: str | None,
             params_why: str | None = None, madds_why: str | None = None) -> Row:
    """A build of configs/, by what its name has behind the network's, and the paper's own beside it, whose dynamic
    classifier has the r = 8 of the text; None is the static network."""
    if build is None:
        static = classifier(network)
        return Row(label, params, madds, static, params_why, madds_why, static)
    own = classifier(network, 'DCD', build, variant='paper')
    if network == R18 or build.endswith('-cls') or not build:
        own = own._replace(head=(('variant', 'paper'), ('squeeze_ratio', 8)))
    return Row(label, params, madds, classifier(network, 'DCD', build), params_why, madds_why, own)


def mobilenet(build: str | None, *args) -> Row:
    """A row of Tables 1a, 2 and 3."""
    return ablation(HALF, build, *args)


def narrow(method: str) -> Network:
    """MobileNetV2 (0.35×), by the config of the next wider one."""
    return classifier(HALF, method, widen_factor=0.35)


TABLES = [
    Table('Table 1a: the formulation, MobileNetV2 (0.5×)', [
        mobilenet(None, 'W₀', '2.0', '97.0M', 'digits'),
        mobilenet('-pw-attention', 'ΛW₀', '2.4', '97.4M', None, 'MAdds'),
        mobilenet('-pw-fusion', 'W₀ + PΦQᵀ', '2.7', '104.4M'),
        mobilenet('-pw', 'ΛW₀ + PΦQᵀ', '2.9', '104.6M'),
    ]),
    Table('Table 1b: the formulation, ResNet18', [
        ablation(R18, None, 'W₀', '11.1', '1.81G'),
        ablation(R18, '-attention', 'ΛW₀', '11.7', '1.81G', 'ResNet18'),
        ablation(R18, '-fusion', 'W₀ + PΦQᵀ', '13.6', '1.83G', 'ResNet18'),
        ablation(R18, '', 'ΛW₀ + PΦQᵀ', '14.0', '1.83G'),
        Row("5.2: joint fusion (Eq. 9), the paper's build", None, None, classifier(R18, 'DCD', '-joint')),
    ], 'without classifier'),
    Table('Table 2: the latent dimension L', [
        mobilenet(None, 'static', '2.0', '97.0M', 'digits'),
        mobilenet('-pw-latent025', 'L × 0.25', '2.4', '99.8M', 'digits'),
        mobilenet('-pw-latent050', 'L × 0.5', '2.5', '101.3M', 'digits'),
        mobilenet('-pw-latent075', 'L × 0.75', '2.6', '102.9M', 'digits'),
        mobilenet('-pw', 'L × 1.0', '2.9', '104.6M'),
    ]),
    Table('Table 3a: the diagonal blocks B', [
        mobilenet('-pw-fusion', 'W₀ + PΦQᵀ, B = 1', '2.7', '104.4M'),
        mobilenet('-pw-fusion-blocks2', 'W₀ + PΦQᵀ, B = 2', '2.6', '101.0M', 'digits', 'MAdds'),
        mobilenet('-pw-fusion-blocks4', 'W₀ + PΦQᵀ, B = 4', '2.5', '99.1M', 'digits'),
        mobilenet('-pw-fusion-blocks8', 'W₀ + PΦQᵀ, B = 8', '2.5', '98.5M'),
        mobilenet('-pw', 'ΛW₀ + PΦQᵀ, B = 1', '2.9', '104.6M'),
        mobilenet('-pw-blocks2', 'ΛW₀ + PΦQᵀ, B = 2', '2.8', '101.3M', None, 'MAdds'),
        mobilenet('-pw-blocks4', 'ΛW₀ + PΦQᵀ, B = 4', '2.7', '99.4M'),
        mobilenet('-pw-blocks8', 'ΛW₀ + PΦQᵀ, B = 8', '2.7', '98.8M', 'digits'),
    ]),
    Table('Table 3b: the layers', [
        mobilenet('-dw', 'DW', '2.4', '97.5M', 'DW', 'MAdds'),
        mobilenet('-pw', 'PW', '2.9', '104.6M'),
        mobilenet('-cls', 'CLS', '2.2', '97.2M', 'CLS'),
        mobilenet('-dw-cls', 'DW, CLS', '2.6', '97.7M', 'DW', 'MAdds'),
        mobilenet('-dw-pw', 'DW, PW', '3.3', '105.1M', 'DW', 'MAdds'),
        mobilenet('', 'PW, CLS', '3.1', '104.8M', 'digits'),
        mobilenet('-dw-pw-cls', 'DW, PW, CLS', '3.5', '105.3M', 'DW', 'MAdds'),
    ]),
    Table('Table 4a: MobileNetV2', [
        Row('1.0×, static', '3.5', '300.0M', classifier(FULL)),
        Row('1.0×, DY-Conv', '11.1', '312.9M', classifier(FULL, 'DyConv (4×)'), 'quoted', 'quoted'),
        Row('1.0×, CondConv', '27.5', '329.0M', classifier(FULL, 'CondConv (8×)'), 'quoted', 'quoted'),
        Row('1.0×, DCD', '5.5', '326.0M', classifier(FULL, 'DCD'), 'classifier'),
        Row('0.5×, static', '2.0', '97.0M', classifier(HALF), 'digits'),
        Row('0.5×, DY-Conv', '4.0', '101.4M', classifier(HALF, 'DyConv (4×)'), 'quoted', 'quoted'),
        Row('0.5×, CondConv', '15.5', '113.0M', classifier(HALF, 'CondConv (8×)'), 'quoted', 'quoted'),
        Row('0.5×, DCD', '3.1', '104.8M', classifier(HALF, 'DCD'), 'digits'),
        Row('0.35×, static', '1.7', '59.2M', narrow('static'), 'digits'),
        Row('0.35×, DY-Conv', '2.8', '62.0M', narrow('DyConv (4×)'), 'quoted', 'quoted'),
        Row('0.35×, DCD', '2.3', '63.1M', Network('dcd/dcd-mobilenet-v2-w035_8xb32_in1k'), 'digits', 'MAdds'),
    ]),
    Table('Table 4b: ResNet', [
        Row('ResNet50, static', '23.5', '3.8G', classifier(R50, style='caffe'), None, 'digits'),
        Row('ResNet50, DCD', '30.7', '3.9G', classifier(R50, 'DCD', style='caffe'), 'ResNet50', 'digits'),
        Row('ResNet18, static', '11.1', '1.81G', classifier(R18)),
        Row('ResNet18, DY-Conv', '42.7', '1.85G', classifier(R18, 'DyConv (4×)'), 'quoted'),
        Row('ResNet18, DCD', '14.0', '1.83G', classifier(R18, 'DCD')),
        Row('ResNet10, static', '5.2', '0.89G', Network('static/resnet10_8xb32_in1k'), 'ResNet10'),
        Row('ResNet10, DY-Conv', '18.6', '0.91G', classifier(R18, 'DyConv (4×)', depth=10), 'quoted'),
        Row('ResNet10, DCD', '6.5', '0.90G', Network('dcd/dcd-resnet10_8xb32_in1k'), 'ResNet10'),
    ], 'without classifier'),
]
PAPER = Paper(
    'DCD: Revisiting Dynamic Convolution via Matrix Decomposition (ICLR 2021)',
    '''\
[arxiv.org/abs/2103.08756](https://arxiv.org/abs/2103.08756). The paper cuts digits off, and counts ResNets without the
classifier. Tables 1 to 3 are of `DCDMobileNetV2(widen_factor=0.5)` and `DCDResNet(depth=18)` in the released build (the
default), and beside it in the paper's own (`variant='paper'`, Eq. 5 to 9 as printed). Unless CLS is named, the
classifier of MobileNetV2 is static there. The static networks, DY-Conv and CondConv of Table 4 are quoted from their
own papers; three of them have no config here, and are counted by that of another width or depth.
''',
    TABLES,
    {
        'digits': 'the paper prints so few digits that what it rounds or cuts off is over 1%',
        'quoted': 'the figure is quoted from the paper of that method, which builds another network than the ODConv '
                  "paper's, which is the one here",
        'classifier': 'the released network has 5.72M, in the ODConv paper too. Of what was tried, two have 5.5M: the '
                      "paper's build (`variant='paper'`) in all 1×1 convolutions, as the text has it "
                      "(`dynamic_layers=('all_pointwise', )`), with the released classifier 5.51M, and the released "
                      "blocks with a static classifier 5.54M, cut off. In the released layers, the paper's build has "
                      '5.26M with a static classifier, 5.44M with the released one and 5.66M with its own '
                      "(`variant='paper'` of `DCDLinearClsHead`); in all 1×1 convolutions 5.33M and 5.73M with the "
                      'static one and its own',
        'ResNet50': "of 48 builds that were tried, with r = 8, 16 and 32, without a classifier, as the paper counts "
                    'ResNets, and with each of three, with and without dynamic shortcuts, three have 30.7M: the '
                    "paper's blocks (`variant='paper'`) with the released dynamic classifier 30.72M, the released "
                    "blocks with the paper's classifier 30.72M, and the released blocks with r = 8, where the text has "
                    'r = 16 for ResNet, without a classifier 30.73M. The released network has 29.84M with its '
                    'classifier, which the ODConv paper prints, and 27.56M without',
        'ResNet10': 'the paper does not describe the network. One block a stage, which has its multiply-adds, has '
                    '4.91M without a classifier and 5.42M with one; the 5.2M between them are, the paper says, from '
                    "the baseline's own paper. Its 6.5M of DCD are those with a static classifier (6.56M, cut off)",
        'MAdds': 'the rows with Λ alone or in depthwise convolutions grow in the paper by no more than the FCs of the '
                 "branch, so it counts neither the pooling nor Λ's products; ours does, as the ODConv paper does. "
                 'Whether W(x) is built or the features go through Q, Φ and P, the paper does not say; ours takes the '
                 'cheaper',
        'DW': "Eq. 8 with the branch of 3.4 and the text's r = 8 and L_k = ⌊k²/2⌋ has 2.28M, the paper 2.4M. Of what "
              'was tried, r = 6 (2.37M), r = 5 (2.45M) and four times L_k (2.43M) have it; r = 4 has 2.57M, twice L_k '
              '2.31M',
        'CLS': "the released classifier (L = s = 32) has 2.15M, the paper's own, by Eq. 6 (L = 40), 2.68M with the "
               "text's r = 8; of what was tried, r = 32 (2.22M) has the printed 2.2M, r = 16 has 2.37M, r = 64 2.14M",
        'ResNet18': 'the full model agrees with the released one. Of 432 branches that were tried (1, 4 or 9 pooled '
                    "pixels, four rules of L, r from 2 to 32, with and without the gate), none has all "
                    'three rows. ΛW₀ has 11.77M with one pooled pixel and r = 4, where the full model would have 12.2M '
                    'to 13.1M; the other two rows are those of the released branch without its gate, 13.68M, cut off, '
                    'and 13.99M, which has 12.62M with Λ alone',
    },
    '''\
What the paper leaves open, and what its own figures say:

- **The build.** The released build's sizes (four pooled pixels where a convolution expands, a gate in the branch, the
  released L) give the parameters of every row of Tables 1a, 2 and 3a to the printed digit, if the width s of the
  branch follows the multiplied L, but neither B nor the absence of Φ, and each block has the L of C / B channels. The
  text's own rules (3.2, 3.4: L from C, r = 8, one pooled pixel) do not; so the tables were counted with the released
  build.
- **L.** 3.2 gives L as ⌊C / 2^⌊log₂ √C⌋⌋ and as "dividing C by 2 repeatedly until it is less than √C", which differ
  (C = 96: 12 and 6), and does not say which C where C_in ≠ C_out. `variant='paper'` takes the formula, with C_in.
- **Norms around Φ.** The released ones cannot be part of W(x); as in the paper, their residual is counted as if it were
  PΦQᵀ.
- **Joint fusion** (Eq. 9): the paper gives its accuracy (71.3, against 73.1 of channel fusion alone), but no size.
''')
