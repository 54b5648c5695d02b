# the backbone of the DCDC demos: DCDC-ResNet-26, thin, trained from scratch
dcdc_r26_thin = dict(
    type='DCDCResNet', depth=26, stem_channels=32, base_channels=16, frozen_stages=-1, norm_eval=False, init_cfg=None)
