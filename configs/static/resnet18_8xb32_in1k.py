_base_ = '../_base_/resnet18_in1k.py'
