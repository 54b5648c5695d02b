# a small ODConv detector on handwritten digits, trained from scratch in minutes on two CPU cores
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', '../_base_/digits_detection.py']

strides = [8, 16, 32, 64]  # of the pyramid's maps; digits are large, so the finest map is left out
model = dict(
    backbone=dict(
        type='ODConvResNet',
        kernel_num=1,
        depth=18,
        stem_channels=16,
        base_channels=16,
        frozen_stages=-1,  # nothing is pre-trained, so nothing is frozen …
        norm_eval=False,  # … and batch norms learn
        init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=64, start_level=1, num_outs=4),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4], strides=strides)),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=64, featmap_strides=strides[:3]),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=10)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=100, max_per_img=50),
        rcnn=dict(sampler=dict(num=48))),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50)))
