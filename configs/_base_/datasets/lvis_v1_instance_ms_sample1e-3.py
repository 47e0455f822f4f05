# Repeat-factor sampling (LVIS, arXiv 1908.03195): images of classes in fewer than a thousandth of the images come more often.
_base_ = 'lvis_v1_instance_ms.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ClassBalancedDataset',
        oversample_thr=1e-3,
        dataset={{_base_.train_dataloader.dataset}}))
