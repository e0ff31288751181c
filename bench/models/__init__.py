"""Models: a name to a folder on this machine, by download where it is asked for."""
