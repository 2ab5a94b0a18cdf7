"""Post-training quantization: decide what becomes int8, choose ranges, insert QDQ."""
