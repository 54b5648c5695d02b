"""Weights and models from elsewhere: official checkpoints, static networks, any model's convolutions."""
from .carry_over import carry_over
from .checkpoint_file import CheckpointError, check_fit, read_checkpoint, read_state_dict, write_checkpoint

__all__ = ['CheckpointError', 'carry_over', 'check_fit', 'read_checkpoint', 'read_state_dict', 'write_checkpoint']
