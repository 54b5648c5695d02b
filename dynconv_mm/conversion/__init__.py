"""Weights and models from elsewhere: official checkpoints, static networks, any model's convolutions."""
from .checkpoint_file import CheckpointError, check_fit, read_checkpoint, read_state_dict, write_checkpoint
from .official import from_official, to_official

__all__ = [
    'CheckpointError', 'check_fit', 'from_official', 'read_checkpoint', 'read_state_dict', 'to_official',
    'write_checkpoint'
]
