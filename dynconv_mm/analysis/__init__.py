"""What networks cost and what they learned."""
from .madds import count_madds

__all__ = ['count_madds']
