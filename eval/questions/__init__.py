"""Questions of a JSONL file: what is asked, and whether an answer is right."""
