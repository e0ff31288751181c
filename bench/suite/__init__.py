"""A suite file to a validated Suite, and what can be named in one."""
