"""How every experiment starts and ends: what is wrong with the input is said in one sentence."""

import subprocess
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from xlingjax.errors import InputError

HELP = {"--help", "-help", "--helpshort", "--helpfull"}


def run(main: Callable[[], None]) -> None:
    """Parses the flags, runs `main`, and exits.

    Exit status: 0, also for --help; 1 with one line on stderr for an `InputError` or an unknown flag; 130 for
    Ctrl-C; 143 where a run saved its state at SIGTERM. Anything else is our defect and shows its
    traceback.
    """

    def guarded(arguments: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it writes
        try:
            if len(arguments) > 1:
                raise InputError(
                    f"unknown argument {arguments[1]!r}; settings are flags, --help lists them"
                )
            if "workdir" in flags.FLAGS and flags.FLAGS["workdir"].value == "":
                raise InputError("--workdir is empty; name a folder")
            main()
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt as stop:
            print(f"stopped{f': {stop}' if str(stop) else ''}", file=sys.stderr)
            sys.exit(130)

    app.run(guarded, flags_parser=_parse)


def run_commands(commands: Sequence[Sequence[str]]) -> None:
    """Runs `python -m` on each list of arguments, printed first; the first that fails ends the process."""
    for arguments in commands:
        print(f"\npython -m {' '.join(arguments)}", file=sys.stderr, flush=True)
        status = subprocess.run([sys.executable, "-m", *arguments], check=False).returncode
        if status:
            print("stopped; the same command goes on where it stopped", file=sys.stderr)
            sys.exit(status)


def _parse(arguments: list[str]) -> list[str]:
    """absl's own parser, but to ask for help is no failure."""
    try:
        return app.parse_flags_with_usage(arguments)
    except SystemExit:
        if HELP & set(arguments):
            sys.exit(0)
        raise
