# as ./dynconv_mm.py, and what a detector's training checks first: that its heads have as many classes as the data
_base_ = './dynconv_mm.py'
custom_hooks = [dict(type='mmdet.NumClassCheckHook')]
