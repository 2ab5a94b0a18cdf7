"""The torch meaning of the Relax operators we accept, one file per family."""
