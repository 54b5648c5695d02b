"""What mmdet's evaluation lacks from PyPI alone."""
from .panoptic_quality import PanopticQualityMetric

__all__ = ['PanopticQualityMetric']
