"""Hooks of mmengine's runner."""
from .epoch_seed import EpochSeedHook
from .temperature_annealing import TemperatureAnnealingHook
from .whole_checkpoint import WholeCheckpointHook

__all__ = ['EpochSeedHook', 'TemperatureAnnealingHook', 'WholeCheckpointHook']
