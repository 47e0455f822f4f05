import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from torch import nn

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CONFIG = dict(type='DetDataPreprocessor', mean=MEAN, std=STD, bgr_to_rgb=True, pad_size_divisor=32)


def images(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


def test_normalised_reversed_padded_and_stacked(device):
    pictures = images((40, 60), (50, 30))
    samples = [DetDataSample(), DetDataSample()]
    preprocessor = MODELS.build(dict(CONFIG, pad_value=0)).to(device)
    batch = preprocessor(dict(inputs=pictures, data_samples=samples))
    assert batch['inputs'].device.type == device.type
    inputs = batch['inputs'].cpu().numpy()
    assert inputs.shape == (2, 3, 64, 64) and inputs.dtype == np.float32
    for found, picture in zip(inputs, pictures, strict=True):
        rgb = picture.numpy()[::-1].astype(np.float64)
        expected = (rgb - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
        height, width = picture.shape[1:]
        np.testing.assert_allclose(found[:, :height, :width], expected, rtol=1e-5, atol=1e-6)
        assert (found[:, height:] == 0).all() and (found[:, :, width:] == 0).all()
    assert [sample.pad_shape for sample in batch['data_samples']] == [(64, 64), (64, 32)]
    assert [sample.batch_input_shape for sample in batch['data_samples']] == [(64, 64)] * 2


def test_a_tensor_of_images_and_no_samples():
    pictures = torch.stack(images((20, 20), (20, 20)))
    batch = MODELS.build(dict(type='DetDataPreprocessor', pad_size_divisor=8, pad_value=7))(dict(inputs=pictures))
    assert batch['data_samples'] is None
    assert torch.equal(batch['inputs'][:, :, :20, :20], pictures.float())
    assert (batch['inputs'][:, :, 20:] == 7).all() and batch['inputs'].shape[-2:] == (24, 24)


def test_the_images_given_are_left_alone_and_nothing_is_saved():
    pictures = images((8, 8))
    before = pictures[0].clone()
    preprocessor = MODELS.build(dict(CONFIG))
    preprocessor(dict(inputs=pictures, data_samples=None))
    assert torch.equal(pictures[0], before)
    assert not preprocessor.state_dict()


class Masks:
    """Stands for instance masks: knows the size it was padded to."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return 1

    def pad(self, size):
        return Masks(size)


def sample_with_pictures():
    sample = DetDataSample()
    sample.gt_instances = InstanceData(labels=torch.zeros(1), masks=Masks((20, 24)))
    sample.gt_sem_seg = PixelData(sem_seg=torch.ones(1, 20, 24, dtype=torch.uint8))
    return sample


def test_annotated_pictures_are_padded_in_training():
    preprocessor = MODELS.build(dict(CONFIG, pad_mask=True, pad_seg=True, seg_pad_value=255))
    for training, size in ((True, (32, 32)), (False, (20, 24))):
        data = dict(inputs=images((20, 24)), data_samples=[sample_with_pictures()])
        (sample,) = preprocessor(data, training=training)['data_samples']
        assert sample.gt_instances.masks.size == size
        labels = sample.gt_sem_seg.sem_seg
        assert labels.shape == (1, *size)
        assert (labels[:, :20, :24] == 1).all() and (labels[:, 20:] == 255).all()


@MODELS.register_module()
class BlackOut(nn.Module):
    """A batch augmentation for the test below."""

    def forward(self, inputs, data_samples):
        return inputs * 0, data_samples


def test_batches_are_augmented_in_training_only():
    preprocessor = MODELS.build(dict(CONFIG, batch_augments=[dict(type='BlackOut')]))
    data = dict(inputs=images((8, 8)), data_samples=None)
    assert (preprocessor(data, training=True)['inputs'] == 0).all()
    assert (preprocessor(data)['inputs'] != 0).any()


def test_batches_are_padded_to_a_fixed_size():
    augment = dict(type='BatchFixedSizePad', size=(48, 32), img_pad_value=7, pad_mask=True, pad_seg=True)
    preprocessor = MODELS.build(dict(CONFIG, batch_augments=[augment]))
    data = preprocessor(dict(inputs=images((20, 40)), data_samples=[sample_with_pictures()]), training=True)
    (sample,) = data['data_samples']
    assert data['inputs'].shape[-2:] == sample.batch_input_shape == sample.gt_instances.masks.size == (48, 64)
    assert (data['inputs'][..., 32:, :] == 7).all() and sample.gt_sem_seg.sem_seg.shape == (1, 48, 64)


@pytest.mark.parametrize('change', [dict(std=None), dict(rgb_to_bgr=True)])
def test_contradictions_are_refused(change):
    with pytest.raises(ValueError):
        MODELS.build(dict(CONFIG, **change))
