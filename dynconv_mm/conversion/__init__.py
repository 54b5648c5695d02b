"""Weights and models from elsewhere: released checkpoints, static networks, any model's convolutions."""
from ..compat.installed import HAS_OPENMMLAB
from .dynamicize import DynamicizeReport, dynamicize
from .init_from_static import init_from_static
from .kernel_rates import kernel_rates
from .static_counterpart import fold_weight_excitation, static_counterpart, static_layer

if HAS_OPENMMLAB:  # on which these are built
    from .checkpoint_file import CheckpointError, check_fit, read_checkpoint, read_state_dict, write_checkpoint
    from .dynamicized_model import Dynamicized
    from .released_checkpoints import from_released, to_released
    from .warm_start import WarmStart, max_difference, warm_start

__all__ = [
    'CheckpointError', 'DynamicizeReport', 'Dynamicized', 'WarmStart', 'check_fit', 'dynamicize',
    'fold_weight_excitation', 'from_released', 'init_from_static', 'kernel_rates', 'max_difference',
    'read_checkpoint', 'read_state_dict', 'static_counterpart', 'static_layer', 'to_released', 'warm_start',
    'write_checkpoint'
]
