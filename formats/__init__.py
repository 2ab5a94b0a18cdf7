"""Floor 0: how a tensor is stored in few bits."""
