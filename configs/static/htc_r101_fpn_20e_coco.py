_base_ = 'mmdet::htc/htc_r101_fpn_20e_coco.py'
