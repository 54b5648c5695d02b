"""Weights and models from elsewhere: official checkpoints, static networks, any model's convolutions."""
from .carry_over import carry_over
from .checkpoint_file import CheckpointError, check_fit, read_checkpoint, read_state_dict, write_checkpoint
from .dynamicize import DynamicizeReport, dynamicize
from .dynamicized import Dynamicized
from .official import from_official, to_official

__all__ = [
    'CheckpointError', 'Dynamicized', 'DynamicizeReport', 'carry_over', 'check_fit', 'dynamicize', 'from_official',
    'read_checkpoint', 'read_state_dict', 'to_official', 'write_checkpoint'
]
