"""The program `interlace`: handle Ctrl-C, then import the commands."""

from interlace.system import interruption


def main() -> None:
    """Run a command."""
    interruption.install()
    from interlace import cli

    cli.main()


if __name__ == "__main__":
    main()
