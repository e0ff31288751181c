"""Models: from a reference to a folder on this machine, downloaded on request."""
