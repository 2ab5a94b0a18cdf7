"""Floor 2: passes from Relax to Relax."""
