"""What networks cost and what they learned."""
from .complexity import measure_complexity
from .multiply_adds import count_madds

__all__ = ['count_madds', 'measure_complexity']
