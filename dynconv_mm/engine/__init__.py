"""What happens when in training."""
