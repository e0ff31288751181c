"""lm-evaluation-harness on any engine's session."""
