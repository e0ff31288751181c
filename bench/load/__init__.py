"""The load: prompts of exact length."""
