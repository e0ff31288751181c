"""What crosses the process boundary.

Frozen standard-library dataclasses, their JSON form, and the plugin protocols.

Worker environments import this package and nothing else of the suite's own, so it imports the standard
library alone.
"""
