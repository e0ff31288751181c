"""Records to tables, figures, comparisons, a page and a document."""
