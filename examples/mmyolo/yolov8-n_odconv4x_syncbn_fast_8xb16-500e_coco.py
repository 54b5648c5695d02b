# YOLOv8-n whose backbone has dynamic 3×3 convolutions, and starts with the function that it would have without
# (mmyolo 0.6.0)
_base_ = 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py'
custom_imports = dict(imports=['dynconv_mm'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='Dynamicized',
        module='YOLOv8CSPDarknet',
        op=dict(type='ODConv2d', kernel_num=4),
        placement='3x3'))
