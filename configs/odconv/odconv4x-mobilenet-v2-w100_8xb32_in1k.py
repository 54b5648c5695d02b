_base_ = './odconv1x-mobilenet-v2-w100_8xb32_in1k.py'
model = dict(backbone=dict(kernel_num=4))
