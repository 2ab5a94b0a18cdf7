"""Passes that compress weights: `quantize_weights` and `prune`, layer by layer."""
