# FCN on a dilated ODConv-ResNet-50 v1c, from scratch; any base of mmseg on a ResNet is changed so
# (mmsegmentation 1.2.2)
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
custom_imports = dict(imports=['dynconv_mm'], allow_failed_imports=False)
model = dict(
    pretrained=None,  # the static network's, which mmseg would hand to the backbone
    backbone=dict(type='ODConvResNet', kernel_num=4, deep_stem=True))  # deep_stem: that of ResNetV1c
