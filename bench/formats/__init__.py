"""Artifact formats: what the files of each hold, read without any engine's library."""
