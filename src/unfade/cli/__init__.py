"""The command line: turns flags into settings and calls one recipe or stage. Only this room prints."""

import os
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

import unfade
from unfade.cli import (
    adapt,
    compare,
    data,
    degrade,
    demo,
    doctor,
    evaluate,
    gather,
    inspect,
    models,
    page,
    rehearse,
    restore,
    steps,
    table,
    train,
)
from unfade.cli.console import drop_output, put
from unfade.cli.wording import spoken
from unfade.errors import STOPPED, BadInput, OutOfMemory, UnfadeError
from unfade.memory import few_arenas, return_large
from unfade.shown import printable
from unfade.zoo.models import weights_folder

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo.demo)
TUNED = "The defaults shown are those for the built-in models; other restorers use the defaults of their family."
app.command(epilog=TUNED)(adapt.adapt)
app.command()(restore.restore)
app.command(epilog=TUNED)(steps.targets)
app.command(epilog=TUNED)(steps.finetune)
app.command()(degrade.degrade)
app.command()(inspect.inspect)
app.command(epilog=TUNED)(rehearse.rehearse)
app.command()(evaluate.evaluate)
app.command()(gather.gather)
app.command()(compare.compare)
app.command()(table.table)
app.add_typer(train.app, name="train")
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.command("app")(page.page)
app.command()(doctor.doctor)


def _say_version(asked: bool) -> None:
    if asked:
        put(f"unfade {unfade.__version__}")
        raise typer.Exit()


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """Adapt a face restorer to a folder of your own degraded photos."""


def start() -> None:
    """Entry point of the installed command: sets up the process's memory allocator, then runs `main`."""
    few_arenas()
    if sys.argv[1:2] == ["restore"]:
        return_large()
    main()


def main() -> None:
    """Run the command line. Exit code 0: all done; 1: some items failed; 2: could not start or go on; 130: stopped."""
    try:
        _refuse_empty(sys.argv[1:])
        app()
    except UnfadeError as error:
        _end(spoken(str(error)), 2)
    except OSError as error:
        _end(_refused(error), 2)
    except (RuntimeError, MemoryError) as error:
        _end(spoken(_too_large(error)), 2)
    except KeyboardInterrupt:
        _end(STOPPED, 130)
    except SystemExit as end:
        if end.code == 130:  # Typer has caught Ctrl-C itself
            _end(STOPPED, 130)
        raise


def _refuse_empty(words: list[str]) -> None:
    """Raises BadInput for an empty argument: it comes from an unset variable, and would be the present folder."""
    before = ""
    for word in words:
        if not word or (word.startswith("--") and word.endswith("=")):
            place = f" after {before}" if before and not word else f" of {word[:-1]}" if word else ""
            raise BadInput(f"The value{place} is empty, maybe from an unset variable; give one, or . for this folder.")
        before = word


def _end(sentence: str, code: int) -> NoReturn:
    drop_output()  # unwritten output would fail again when the process ends
    with suppress(OSError):  # standard error may be closed too
        print(printable(sentence), file=sys.stderr, flush=True)
    sys.exit(code)


def _too_large(error: RuntimeError | MemoryError) -> str:
    """One sentence for running out of memory where no stage can help itself; raises any other error again."""
    from unfade.devices import room_in_memory

    try:
        with room_in_memory():
            raise error
    except OutOfMemory as known:
        return str(known)


def _refused(error: OSError) -> str:
    """One sentence for an operating-system error that no room has handled."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return f"The operating system reported an error ({reason}); what was finished before is kept."
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else f"file {error.filename}"
    moved = " (UNFADE_WEIGHTS sets the folder of weights)" if place.startswith(str(weights_folder())) else ""
    return f"{place} cannot be used ({reason}); check its name and permissions, or choose another place{moved}."
