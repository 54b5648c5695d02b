_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/detection.py']
model = dict(
    backbone=dict(
        type='KWResNet',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/kw1x-resnet50.pth', prefix='backbone.')))
