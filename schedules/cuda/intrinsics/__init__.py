"""Instructions: their PTX, and their meaning as plain TIR."""
