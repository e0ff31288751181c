"""REPORT.md and README.md: prose by hand, numbers filled in from records."""
