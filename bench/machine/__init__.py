"""What machine this is, and what it feels from outside while a cell runs."""
