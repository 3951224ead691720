"""The command ``las``: its subcommands, and errors as one line.

Heavy modules are imported by the commands that need them, so that ``las --help`` is fast.
"""

import sys
from typing import Annotated, NoReturn

import typer

from las import standard_streams
from las.cli.bpe import bpe
from las.cli.evaluation.calibrate import calibrate
from las.cli.evaluation.compare import compare
from las.cli.evaluation.evaluate import evaluate
from las.cli.evaluation.tune import tune
from las.cli.explain import explain
from las.cli.export import export
from las.cli.info import info
from las.cli.lm.main import app as lm_app
from las.cli.options import Command
from las.cli.prepare import prepare
from las.cli.serve import serve
from las.cli.train import train
from las.cli.transcribe.main import transcribe
from las.cli.transcribe_bulk import transcribe_bulk
from las.errors import LASError
from las.imports import missing_extra
from las.threads import of_environment as threads_of_environment
from las.version import __version__

# Typer's copy of click's class has no public name.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Listen, Attend and Spell: train, evaluate and use an attention speech recogniser.",
)
app.add_typer(lm_app, name="lm")
for _command in (
    transcribe,
    serve,
    transcribe_bulk,
    explain,
    prepare,
    train,
    evaluate,
    compare,
    tune,
    calibrate,
    info,
    export,
    bpe,
):
    app.command(cls=Command)(_command)


def main() -> None:
    """Run the command; a :class:`LASError` becomes one line and exit status 1."""
    standard_streams.open_closed()
    try:
        threads_of_environment()  # checks OMP_NUM_THREADS, which torch obeys
        try:
            status = app(standalone_mode=False)
        finally:
            standard_streams.put("")  # flush what is buffered
        sys.exit(status)
    except _UsageError as error:
        _refuse(error)
    except LASError as error:
        standard_streams.complain(f"error: {error}")
        sys.exit(1)
    except ModuleNotFoundError as error:
        cure = missing_extra(error)
        if cure is None:
            raise
        standard_streams.complain(f"error: {cure}")
        sys.exit(1)
    except BrokenPipeError:  # `las ... | head`
        standard_streams.abandon()
        sys.exit(1)
    except OSError as error:  # an output that cannot be written, a full disk
        standard_streams.complain(f"error: {error.filename or 'files'}: {error.strerror or error}")
        if error.filename == standard_streams.NAME:
            standard_streams.abandon()
        sys.exit(1)


def _refuse(error: Exception) -> NoReturn:
    """End with one line about a wrong command line, or with the help if there is no command."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    message = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
    command = "las" if context is None else context.command_path
    standard_streams.complain(f"error: {message}; see `{command} --help`")
    sys.exit(2)


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
