"""What crosses the process boundary: dataclasses, their JSON, plugin protocols; by the standard library alone."""
