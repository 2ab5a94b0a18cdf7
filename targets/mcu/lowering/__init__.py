"""Which kernel runs an operator and how its constants are laid out, a file per family."""
