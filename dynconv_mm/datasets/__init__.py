"""What mmdet's data pipelines lack from PyPI alone."""
from .load_panoptic import LoadCocoPanopticAnnotations

__all__ = ['LoadCocoPanopticAnnotations']
