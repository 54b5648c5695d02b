"""Hooks of mmengine's runner."""
from .atomic_checkpoint import AtomicCheckpointHook, WholeCheckpointHook
from .epoch_seed import EpochSeedHook
from .temperature_annealing import TemperatureAnnealingHook

__all__ = ['AtomicCheckpointHook', 'EpochSeedHook', 'TemperatureAnnealingHook', 'WholeCheckpointHook']
