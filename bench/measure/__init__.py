"""Pure functions from timestamps and counters to metrics."""
