"""Which kernel runs an operator, and how its constants are laid out: one file per operator family."""
