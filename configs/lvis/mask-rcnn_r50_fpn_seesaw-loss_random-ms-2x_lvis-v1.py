# Seesaw loss (CVPR 2021) and a cosine classifier, images drawn as they come.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py', '../_base_/datasets/lvis_v1_instance_ms.py',
    '../_base_/schedules/schedule_mmdet_2x.py', '../_base_/default_runtime.py'
]

model = dict(
    roi_head=dict(
        bbox_head=dict(
            num_classes=1203,
            cls_predictor_cfg=dict(type='NormedLinear', temperature=20),
            loss_cls=dict(
                _delete_=True, type='SeesawLoss', p=0.8, q=2.0, num_classes=1203, loss_weight=1.0)),
        mask_head=dict(num_classes=1203)),
    test_cfg=dict(rcnn=dict(score_thr=0.0001, max_per_img=300)))
