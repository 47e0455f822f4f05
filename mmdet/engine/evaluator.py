"""What happens to detections beside the figures: several score settings judged at once, results kept in a file."""
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.structures import BaseDataElement

from mmdet.errors import ConfigError
from mmdet.utils.files import written_whole


class SettingsEvaluator(Evaluator):
    """Judges the same detections under several score settings; figures are named `{setting}/{figure}`.

    A metric need not know of settings: the `pred_instances` of the samples it is given are those of its own setting.

    Args:
        by_setting: the evaluator of each setting.
        others: metrics that are told of every detection and give no figures, as a results file.
    """

    def __init__(self, by_setting: Mapping[str, Evaluator], others: Sequence[BaseMetric] = ()):
        self.by_setting = dict(by_setting)
        self.others = list(others)
        super().__init__([metric for each in self.by_setting.values() for metric in each.metrics] + self.others)

    def process(self, data_samples: Sequence[Any], data_batch: Any = None) -> None:
        """Tell every metric of a batch's detections.

        Args:
            data_samples: data samples, or dicts of such, with `pred_instances_<setting>` where settings are several.
            data_batch: what the detector was given.

        Raises:
            ConfigError: a detector that does not give every setting's detections.
        """
        samples = [each.to_dict() if isinstance(each, BaseDataElement) else each for each in data_samples]
        for setting, evaluator in self.by_setting.items():
            of_setting = samples if len(self.by_setting) == 1 else [_of_setting(each, setting) for each in samples]
            evaluator.process(of_setting, data_batch)
        for metric in self.others:
            metric.process(data_batch, samples)

    def evaluate(self, size: int) -> dict[str, float]:
        """The figures of all settings after the last batch.

        Args:
            size: images in the data set.
        """
        for metric in self.others:
            metric.evaluate(size)
        return {
            f'{setting}/{name}': figure
            for setting, each in self.by_setting.items()
            for name, figure in each.evaluate(size).items()
        }


def _of_setting(sample: Mapping[str, Any], setting: str) -> dict[str, Any]:
    """A sample whose `pred_instances` are those of one setting of several."""
    name = f'pred_instances_{setting}'
    if name not in sample:
        raise ConfigError(f'the detector gives no {name}, so {setting!r} cannot be judged beside other score settings')
    return {**sample, 'pred_instances': sample[name]}


class ResultsPickle(BaseMetric):
    """Keeps all detections and pickles them as a list, in the data set's order, of plain dicts.

    Each has `img_id`, `img_path`, `ori_shape` (height, width) and, for `pred_instances` and every further
    `pred_instances_<setting>`, a dict of numpy arrays `bboxes` (N, 4) xyxy in pixels of the original image, `scores`
    (N,), `labels` (N,), and of `masks`, N COCO run-length encodings.

    Args:
        path: of the pickle.
    """

    def __init__(self, path: str | Path):
        # Processes hand over their shares through files, in a folder that goes when they are joined.
        super().__init__(prefix='results', collect_dir=f'{path}.parts')
        self.path = path

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep a batch's detections."""
        for sample in data_samples:
            predictions = {
                name: {key: _numpy(value) for key, value in instances.items()}
                for name, instances in sample.items()
                if name.startswith('pred_instances')
            }
            self.results.append({key: sample[key] for key in ('img_id', 'img_path', 'ori_shape')} | predictions)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Write the file.

        Raises:
            UserError: where it cannot be written.
        """
        with written_whole(self.path) as file:
            pickle.dump(results, file)
        return {}


def _numpy(value: Any) -> Any:
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else value
