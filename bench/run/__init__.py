"""From a suite file to records."""
