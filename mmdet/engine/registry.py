"""Children in the scope `mmdet` of the registries only the engine uses; mmengine warns where a scope lacks one."""
from mmengine import registry as root

from mmdet.registry import SCOPE


def _child(parent: root.Registry) -> root.Registry:
    return root.Registry(parent.name, parent.build_func, parent=parent, scope=SCOPE, locations=['mmdet.engine'])


EVALUATOR = _child(root.EVALUATOR)
FUNCTIONS = _child(root.FUNCTIONS)
LOG_PROCESSORS = _child(root.LOG_PROCESSORS)
LOOPS = _child(root.LOOPS)
MODEL_WRAPPERS = _child(root.MODEL_WRAPPERS)
OPTIMIZERS = _child(root.OPTIMIZERS)
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS)
PARAM_SCHEDULERS = _child(root.PARAM_SCHEDULERS)
VISBACKENDS = _child(root.VISBACKENDS)
WEIGHT_INITIALIZERS = _child(root.WEIGHT_INITIALIZERS)
