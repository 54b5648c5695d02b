_base_ = './mask-rcnn_dcdc-r50_fpn_1x_coco.py'
model = dict(neck=dict(type='DynamicFPN', fpn_conv_cfg=dict(type='DCDC2d')))
