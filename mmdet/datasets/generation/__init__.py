"""Data sets that are generated rather than downloaded."""
from .glyph_lt import generate_glyph_lt

__all__ = ['generate_glyph_lt']
