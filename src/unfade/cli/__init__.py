"""The command line: flags to one recipe or stage. Only this room prints."""

import sys
from typing import Annotated

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
    models,
    rehearse,
    restore,
    steps,
    table,
    train,
)
from unfade.cli.wording import spoken
from unfade.errors import UnfadeError
from unfade.memory import few_arenas, return_large

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo.demo)
TUNED = "Defaults of the prior and the training are the built-in models'; other restorers have their family's."
app.command(epilog=TUNED)(adapt.adapt)
app.command()(restore.restore)
app.command(epilog=TUNED)(steps.targets)
app.command(epilog=TUNED)(steps.finetune)
app.command()(degrade.degrade)
app.command(epilog=TUNED)(rehearse.rehearse)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(table.table)
app.add_typer(train.app, name="train")
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.command()(doctor.doctor)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"unfade {unfade.__version__}")
        raise typer.Exit()


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """Adapt a face restorer to a folder of your own degraded photos."""


def start() -> None:
    """Run the command line in a process of its own, whose memory is arranged for it."""
    few_arenas()
    if sys.argv[1:2] == ["restore"]:
        return_large()
    main()


def main() -> None:
    """Run the command line. Exit code 0: all done; 1: some items failed; 2: nothing could be started."""
    try:
        app()
    except UnfadeError as error:
        print(spoken(str(error)), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to go on from here.", file=sys.stderr)
        sys.exit(130)
