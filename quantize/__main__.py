"""`python -m quantize MODEL --method gptq --bits 4 --group-size 128 -o DIR`: one compression, without a suite.

`python -m quantize sensitivity MODEL --method gptq --bits 4`: what each layer's quantization costs.
"""

import sys

from bench.cli.exit_codes import guarded


def _command() -> None:
    from quantize import command, sensitivity_command

    if sys.argv[1:2] == ["sensitivity"]:
        sensitivity_command.app(sys.argv[2:], prog_name="python -m quantize sensitivity")
    else:
        command.app()


if __name__ == "__main__":
    guarded(_command)
