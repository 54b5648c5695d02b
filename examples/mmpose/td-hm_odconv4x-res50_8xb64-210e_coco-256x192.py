# mmpose's simple baseline, whose ResNet-50 starts with the function of the pre-trained one that its base names
# (mmpose 1.3.2)
_base_ = 'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py'
custom_imports = dict(imports=['dynconv_mm'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='Dynamicized',
        module='ResNet',
        op=dict(type='ODConv2d', kernel_num=4),
        placement='3x3'))
