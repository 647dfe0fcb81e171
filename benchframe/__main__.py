"""``benchframe`` and ``python -m benchframe``."""


def main() -> None:
    """Run the command line and end the process with its exit code (docs/cli.md lists them)."""
    from benchframe.cli import app

    app(prog_name="benchframe")


if __name__ == "__main__":
    main()
