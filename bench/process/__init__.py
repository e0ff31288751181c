"""Processes: workers and servers under an environment's own Python, started, watched and ended."""
