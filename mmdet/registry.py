"""The registries: children of mmengine's, in the scope `mmdet`, so that configs name components as mmdetection's do."""
from mmengine import registry as root

SCOPE = 'mmdet'


def _child(parent: root.Registry, *locations: str) -> root.Registry:
    """A registry of this project below `parent`; `locations` are imported on the first look-up."""
    return root.Registry(parent.name, parent=parent, scope=SCOPE, locations=list(locations))


DATASETS = _child(root.DATASETS, 'mmdet.datasets')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'mmdet.datasets.samplers')
TRANSFORMS = _child(root.TRANSFORMS, 'mmdet.datasets.transforms')
MODELS = _child(root.MODELS, 'mmdet.models')
TASK_UTILS = _child(root.TASK_UTILS, 'mmdet.models.task_modules')
METRICS = _child(root.METRICS, 'mmdet.evaluation')
HOOKS = _child(root.HOOKS, 'mmdet.engine')
VISUALIZERS = _child(root.VISUALIZERS, 'mmdet.visualization')
CALIBRATORS = root.Registry('calibrator', scope=SCOPE, locations=['mmdet.calibration'])
ROI_SELECTORS = root.Registry('roi selector', scope=SCOPE, locations=['mmdet.calibration'])
