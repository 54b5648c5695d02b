_base_ = './odconv1x-resnet50_8xb32_in1k.py'
model = dict(backbone=dict(kernel_num=4))
