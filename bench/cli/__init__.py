"""The command line: `app` gathers the verbs, each of which calls a room; `exit_codes` says how a command ends."""
