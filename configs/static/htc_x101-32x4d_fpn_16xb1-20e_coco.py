_base_ = 'mmdet::htc/htc_x101-32x4d_fpn_16xb1-20e_coco.py'
