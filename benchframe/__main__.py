"""``benchframe`` and ``python -m benchframe``."""

import os
import sys


def main() -> None:
    """Run the command line and end the process with its exit code (docs/cli.md lists them)."""
    from benchframe.cli import app

    try:
        app(prog_name="benchframe")
    except BrokenPipeError:  # `benchframe ... | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # 128 + SIGPIPE


if __name__ == "__main__":
    main()
