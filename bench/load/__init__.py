"""The load: prompts of exact length, arrivals, and the client that applies them over HTTP and measures."""
