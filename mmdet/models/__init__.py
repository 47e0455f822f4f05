"""The detector's parts, each in the registry MODELS under mmdetection's name."""
from . import losses, task_modules  # noqa: F401
