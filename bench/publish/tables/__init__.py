"""Tables of records: columns, sections, highlights, and their text forms."""
