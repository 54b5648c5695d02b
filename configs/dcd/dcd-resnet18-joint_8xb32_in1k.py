# DCD, 5.2: 71.3, Φ fuses channels and kernel elements (Eq. 9), in the paper's build, which alone has it
_base_ = './dcd-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(variant='paper', fusion='joint'))
