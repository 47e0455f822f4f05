"""Classifier re-training (cRT; Kang et al., "Decoupling Representation and Classifier", ICLR 2020)."""
from mmdet.registry import CALIBRATORS

from .last_layer import LastLayer


@CALIBRATORS.register_module()
class CRT(LastLayer):
    """The last layer thrown away and trained anew.

    What makes it a method for the tail is the config's sampler, which draws a class first and then an image with it.
    """

    starts_from_base = False


@CALIBRATORS.register_module()
class FineTuned(LastLayer):
    """The base's last layer trained further, on whatever the config's sampler and selector choose.

    With a `BiLevelSampler` and a `DrawnClassSelector` these are SimCal's RoIs, without its new layers.
    """
