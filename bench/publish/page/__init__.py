"""report.html: one page with every record, filters, charts and tables."""
