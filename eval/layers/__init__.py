"""What each layer of a model adds to a divergence: one of them quantized at a time, in the unquantized model."""
