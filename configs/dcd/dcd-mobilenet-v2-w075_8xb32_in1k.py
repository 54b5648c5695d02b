# DCD, 5: 300 epochs, batch 256, one cosine cycle from 0.05 to 0, weight decay 2e-5, dropout 0.1. The paper has no
# result of this width.
_base_ = './dcd-mobilenet-v2-w075_8xb32-300e_in1k.py'
optim_wrapper = dict(optimizer=dict(weight_decay=2e-5))
