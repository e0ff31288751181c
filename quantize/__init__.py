"""Compression: each method is a file in quantize/methods, usable through a suite or `python -m quantize`."""
