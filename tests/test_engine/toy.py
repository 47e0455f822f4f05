"""A model with dropout and a data set of random vectors, quick to train; as a script, one process of a run."""
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from mmdet.engine import Runner, start_processes
from mmdet.engine.dist import end_processes
from mmdet.registry import DATASETS, METRICS, MODELS
from mmdet.structures import ClassFrequency
from mmdet.utils.seeding import keyed_generator


@DATASETS.register_module()
class ToyDataset(Dataset):
    """Vectors to be told apart; noise is keyed to the draw, as image augmentation is."""

    metainfo = dict(classes=('cat', 'dog', 'axolotl'), category_ids=(1, 2, 7))

    def __init__(self, size: int = 24):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, draw):
        if isinstance(draw, int):
            rng, index = keyed_generator(0, draw), draw
        else:
            rng, index = keyed_generator(draw.seed, draw.number), draw.index
        label = index % 3
        vector = np.eye(3)[label].repeat(4) + rng.normal(size=12)
        return dict(inputs=torch.tensor(vector, dtype=torch.float32), data_samples=torch.tensor(label))

    def class_frequency(self):
        return ClassFrequency(('cat', 'dog', 'axolotl'), np.array([80, 20, 1]), np.array([8, 8, 1]))


@MODELS.register_module()
class ToyModel(BaseModel):
    """Two layers, dropout and batch normalisation."""

    def __init__(self, width: int = 8, num_classes: int = 3, data_preprocessor=None, init_cfg=None):
        super().__init__(data_preprocessor, init_cfg)
        self.layers = nn.Sequential(nn.Linear(12, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.classifier(self.layers(torch.stack(list(inputs))))
        if mode == 'loss':
            noise = np.random.rand() * logits.mean()
            return dict(loss_cls=nn.functional.cross_entropy(logits, torch.stack(list(data_samples))) + 1e-3 * noise)
        return list(logits) if mode == 'predict' else logits


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """Share of vectors told right."""

    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        labels = torch.stack(list(data_batch['data_samples']))
        self.results += (torch.stack(list(data_samples)).argmax(1) == labels).tolist()

    def compute_metrics(self, results):
        return dict(bbox_AP=float(np.mean(results)))


def toy_config(work_dir, max_iters: int = 6, by_epoch: bool = False, batch_size: int = 4, **changes) -> Config:
    """A complete config; `changes` replace top-level keys."""
    if by_epoch:
        train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_iters, val_interval=100)
    else:
        train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=100)
    config = dict(
        default_scope='mmdet',
        work_dir=str(work_dir),
        model=dict(type='ToyModel'),
        train_dataloader=dict(
            batch_size=batch_size,
            num_workers=0,
            persistent_workers=True,
            sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
            dataset=dict(type='ToyDataset'),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=train_cfg,
        optim_wrapper=dict(
            type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9), clip_grad=dict(max_norm=1)
        ),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5)],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch, max_keep_ckpts=2)),
        randomness=dict(seed=3),
    )
    config.update(changes)
    return Config(config)


def main() -> None:
    """One process of a data-parallel run: an uninterrupted training, and one that is stopped and resumed."""
    work_dir = Path(sys.argv[1])
    torch.set_num_threads(1)
    start_processes('pytorch')
    for name, max_iters, resume in [('straight', 5, False), ('stopped', 2, False), ('stopped', 5, 'auto')]:
        Runner.from_cfg(toy_config(work_dir / name, max_iters, launcher='pytorch', resume=resume)).train()
    end_processes()


if __name__ == '__main__':
    main()
