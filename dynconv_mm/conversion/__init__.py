"""Weights and models from elsewhere: official checkpoints, static networks, any model's convolutions."""
from .checkpoint_file import CheckpointError, check_fit, read_checkpoint, read_state_dict, write_checkpoint

__all__ = ['CheckpointError', 'check_fit', 'read_checkpoint', 'read_state_dict', 'write_checkpoint']
