"""Which activations a pass rounds, apart from the inputs of layers with weights."""
