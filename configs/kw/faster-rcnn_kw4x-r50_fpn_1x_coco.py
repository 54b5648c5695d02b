_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/detection.py']
model = dict(
    backbone=dict(
        type='KWResNet',
        cell_num_ratio=4.,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/kw4x-resnet50.pth', prefix='backbone.')))
