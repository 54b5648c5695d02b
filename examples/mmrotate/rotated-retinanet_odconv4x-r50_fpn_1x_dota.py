# Rotated RetinaNet on an ODConv-ResNet-50, from scratch; so nothing is frozen
# (onedl-mmrotate 1.2.1)
_base_ = 'mmrotate::rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py'
custom_imports = dict(imports=['dynconv_mm'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='ODConvResNet', kernel_num=4, frozen_stages=-1, norm_eval=False, style='pytorch', init_cfg=None))
