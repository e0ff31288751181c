"""Paired comparisons of two artifacts over the same items."""
