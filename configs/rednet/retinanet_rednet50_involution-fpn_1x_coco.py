_base_ = './retinanet_rednet50_fpn_1x_coco.py'
model = dict(neck=dict(type='DynamicFPN', fpn_conv_cfg=dict(type='Involution2d', kernel_size=7)))
