_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../_base_/detection.py']
model = dict(
    backbone=dict(
        type='RedNet',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/rednet50.pth', prefix='backbone.')))
