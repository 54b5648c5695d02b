# a small DCDC Mask R-CNN on handwritten digits, trained from scratch
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/digits_instance.py',
    '../_base_/dcdc-r26-thin.py',
]

strides = [4, 8, 16, 32]  # of the pyramid's maps; strokes are a few pixels wide
model = dict(
    backbone={{_base_.dcdc_r26_thin}},
    neck=dict(
        type='DynamicFPN',
        in_channels=[64, 128, 256, 512],
        out_channels=32,
        num_outs=4,
        fpn_conv_cfg=dict(type='DCDC2d')),
    rpn_head=dict(in_channels=32, feat_channels=32, anchor_generator=dict(scales=[4], strides=strides)),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=32, featmap_strides=strides),
        bbox_head=dict(in_channels=32, fc_out_channels=256, num_classes=10),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=32, featmap_strides=strides),
        mask_head=dict(num_convs=2, in_channels=32, conv_out_channels=32, num_classes=10)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=100, max_per_img=50),
        rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50)))
