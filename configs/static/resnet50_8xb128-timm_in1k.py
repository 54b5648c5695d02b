# DCDC, Table I: 77.2*
_base_ = '../_base_/resnet50_timm_in1k.py'
