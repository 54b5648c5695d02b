_base_ = 'mmdet::htc/htc_r50_fpn_20e_coco.py'
