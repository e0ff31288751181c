"""`python -m bench`, and the command llm-bench."""

from bench.cli.exit_codes import guarded


def main() -> None:
    """Run the command line."""
    guarded(_command)


def _command() -> None:
    from bench.cli.app import app

    app()


if __name__ == "__main__":
    main()
