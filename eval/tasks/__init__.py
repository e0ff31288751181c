"""Tasks: one file is one quality measurement, and its name in a suite."""
