"""Engines: one file is one engine, and its name in a suite."""
