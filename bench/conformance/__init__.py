"""Which architectures go through which methods and engines: tiny models of each, made, scored, and put in a table."""
