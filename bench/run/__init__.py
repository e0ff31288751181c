"""A plan, its rounds, and the record that each leaves."""
