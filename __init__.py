"""fewbits: ONNX in, few-bit binary out."""

__version__ = "0.1.0"
