"""Log-probabilities of tokens and of choices."""
