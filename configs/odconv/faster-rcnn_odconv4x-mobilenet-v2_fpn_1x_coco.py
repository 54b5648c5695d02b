_base_ = ['../_base_/faster-rcnn_mobilenet-v2_fpn_1x_coco.py', '../_base_/detection.py']
model = dict(
    backbone=dict(
        type='ODConvMobileNetV2',
        kernel_num=4,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/odconv4x-mobilenet-v2-w100.pth', prefix='backbone.')))
