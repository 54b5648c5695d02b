"""Weights and models from elsewhere: official checkpoints, static networks, any model's convolutions."""
from .carry_over import carry_over
from .checkpoint_file import CheckpointError, check_fit, read_checkpoint, read_state_dict, write_checkpoint
from .dynamicize import DynamicizeReport, dynamicize
from .dynamicized import Dynamicized

__all__ = [
    'CheckpointError', 'Dynamicized', 'DynamicizeReport', 'carry_over', 'check_fit', 'dynamicize', 'read_checkpoint',
    'read_state_dict', 'write_checkpoint'
]
