"""Methods: one file is one compression method, and its name in a recipe."""
