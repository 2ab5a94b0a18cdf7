"""Floor 4: what a compressed module is lowered to, one folder per family."""
