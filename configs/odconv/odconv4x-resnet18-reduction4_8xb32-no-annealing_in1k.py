# ODConv, Table 10: 73.29, the temperature is 1 throughout
_base_ = './odconv4x-resnet18-reduction4_8xb32_in1k.py'
custom_hooks = []
