"""Token ids of a text, and the windows that a model reads them in."""
