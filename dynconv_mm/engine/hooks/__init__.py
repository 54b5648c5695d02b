"""Hooks of mmengine's runner."""
from .temperature_annealing import TemperatureAnnealingHook

__all__ = ['TemperatureAnnealingHook']
