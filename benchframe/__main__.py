"""``benchframe`` and ``python -m benchframe``."""

import os
import signal
import sys


def main() -> None:
    """Run the command line and end the process with its exit code (docs/cli.md lists them)."""
    try:
        from benchframe.cli import app

        app(prog_name="benchframe")
    except KeyboardInterrupt:  # before a command began
        sys.exit(_interrupted())
    except SystemExit as end:
        from benchframe.cli.options import INTERRUPTED, settings
        from benchframe.errors import ENVIRONMENT, address_limit

        if end.code == INTERRUPTED and not settings.told:  # while the command line was read
            _interrupted()
        if end.code == ENVIRONMENT and address_limit():
            # A library that did not fit may be loaded in part, and CPython 3.13 crashes where it takes that down.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ENVIRONMENT)
        raise
    except BrokenPipeError:  # `benchframe ... | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # 128 + SIGPIPE
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is said: what Python still tidies up prints no traceback
        eval("0")  # or CPython dies of SIGINT where it once broke off an exec() of a text; this clears its note of that


def _interrupted() -> int:
    print("benchframe: interrupted", file=sys.stderr)
    return 130


if __name__ == "__main__":
    main()
