# ODConv A.2 and DCD 5: ResNets, 100 epochs, SGD, batch 256, learning rate 0.1, divided by 10 every 30 epochs, weight
# decay 1e-4 (on which DCD is silent). Neither paper says how the last norm of a block starts: in the released code of
# both, at 1 (mmpretrain's ResNet: at 0).
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
model = dict(backbone=dict(zero_init_residual=False))
