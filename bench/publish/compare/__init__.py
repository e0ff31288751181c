"""Two sets of records side by side, with intervals and what else differs."""
