"""Floor 1, the dialect: our Relax operators, and the torch meaning of every operator we accept."""
