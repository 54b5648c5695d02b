"""Hooks of mmengine's runner."""
from .epoch_seed import EpochSeedHook
from .temperature_annealing import TemperatureAnnealingHook

__all__ = ['EpochSeedHook', 'TemperatureAnnealingHook']
