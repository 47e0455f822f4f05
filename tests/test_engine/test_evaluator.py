"""Several score settings judged at once, by metrics that know nothing of settings."""
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.structures import InstanceData

from mmdet.engine.evaluator import SettingsEvaluator
from mmdet.errors import ConfigError
from mmdet.structures import DetDataSample


class SumOfScores(BaseMetric):
    default_prefix = 'own'

    def process(self, data_batch, data_samples):
        self.results += [float(sample['pred_instances']['scores'].sum()) for sample in data_samples]

    def compute_metrics(self, results):
        return {'scores': sum(results), 'images': len(results)}


class AllNames(BaseMetric):
    default_prefix = 'all'

    def process(self, data_batch, data_samples):
        self.results += [sorted(name for name in sample if name.startswith('pred')) for sample in data_samples]

    def compute_metrics(self, results):
        self.seen = results
        return {}


def sample(**scores):
    data_sample = DetDataSample(metainfo=dict(img_id=1))
    for name, values in scores.items():
        data_sample.set_field(InstanceData(scores=torch.tensor(values)), name)
    return data_sample


def evaluator_of(*settings, others=()):
    return SettingsEvaluator({setting: Evaluator([SumOfScores()]) for setting in settings}, others)


@pytest.mark.parametrize('as_dicts', [False, True])
def test_each_setting_is_judged_by_its_own_detections(as_dicts):
    names = AllNames()
    evaluator = evaluator_of('base', 'dual', others=[names])
    for base, dual in (([1.0, 2.0], [4.0]), ([8.0], [16.0, 32.0])):
        each = sample(pred_instances=base, pred_instances_base=base, pred_instances_dual=dual)
        evaluator.process([each.to_dict() if as_dicts else each], {'inputs': []})
    assert evaluator.evaluate(2) == {
        'base/own/scores': 11.0,
        'base/own/images': 2,
        'dual/own/scores': 52.0,
        'dual/own/images': 2,
    }
    assert names.seen == [['pred_instances', 'pred_instances_base', 'pred_instances_dual']] * 2


def test_a_setting_alone_is_in_pred_instances():
    evaluator = evaluator_of('dual')
    evaluator.process([sample(pred_instances=[1.0])])
    assert evaluator.evaluate(1)['dual/own/scores'] == 1.0


def test_a_setting_that_is_not_given_is_not_mistaken_for_another():
    evaluator = evaluator_of('base', 'dual')
    with pytest.raises(ConfigError, match="gives no pred_instances_dual, so 'dual' cannot be judged"):
        evaluator.process([sample(pred_instances=[1.0], pred_instances_base=[1.0])])
