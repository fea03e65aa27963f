"""`python -m depthcli` is the command `depth`."""

import gc


def main() -> None:
    """Run the command line as the process `depth`."""
    # The search for reference cycles costs the imports a sixth of their time, and finds nothing there.
    gc.set_threshold(100_000, *gc.get_threshold()[1:])
    from depthcli.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
