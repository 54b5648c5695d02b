_base_ = './retinanet_dcdc-r50_dcdc-fpn_1x_coco.py'
model = dict(backbone=dict(depth=26, init_cfg=dict(checkpoint='checkpoints/dcdc-resnet26.pth')))
