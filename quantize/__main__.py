"""`python -m quantize MODEL --method gptq --bits 4 --group-size 128 -o DIR`: one compression, without a suite."""

from bench.cli.exit_codes import guarded


def _command() -> None:
    from quantize.command import app

    app()


if __name__ == "__main__":
    guarded(_command)
