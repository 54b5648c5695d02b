# ODConv, Table 10: 72.35, the temperature is 1 throughout
_base_ = './odconv1x-resnet18-reduction4_8xb32_in1k.py'
custom_hooks = []
