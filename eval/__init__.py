"""What a compressed model lost: corpora, tasks and the command that runs one on any folder or Hub id."""
