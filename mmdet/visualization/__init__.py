"""Pictures: detections on images, contact sheets, AP against training instances, comparison tables."""
from .ap_plot import plot_ap_against_instances
from .colours import class_colour
from .comparison_table import ComparisonTable, comparison_table
from .contact_sheet import contact_sheet
from .det_local_visualizer import DetLocalVisualizer
from .draw import draw_detections
from .picture_file import write_picture

__all__ = [
    'ComparisonTable',
    'DetLocalVisualizer',
    'class_colour',
    'comparison_table',
    'contact_sheet',
    'draw_detections',
    'plot_ap_against_instances',
    'write_picture',
]
