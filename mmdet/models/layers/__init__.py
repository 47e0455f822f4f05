"""Layers that torch does not have, under the names configs give them."""
from .deform_conv import DeformConv2d, ModulatedDeformConv2d
from .normed_predictor import NormedConv2d, NormedLinear

__all__ = ['DeformConv2d', 'ModulatedDeformConv2d', 'NormedConv2d', 'NormedLinear']
