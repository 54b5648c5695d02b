# DCDC, Table I: 76.8. Which of its static networks it trained itself, the paper does not say.
_base_ = '../_base_/resnet50_130e_in1k.py'
