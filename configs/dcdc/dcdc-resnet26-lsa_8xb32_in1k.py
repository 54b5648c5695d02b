# DCDC, Table III: 76.7, the LSA branch alone
_base_ = './dcdc-resnet26_8xb32_in1k.py'
model = dict(backbone=dict(gsi='none'))
