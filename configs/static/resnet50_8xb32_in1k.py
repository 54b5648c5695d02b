_base_ = '../_base_/resnet50_in1k.py'
