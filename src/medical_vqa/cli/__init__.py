"""The command line: one module per command group; every command is a call of the public API.

Heavy modules are imported inside the commands, so that ``medical-vqa --help`` answers at once.
"""

from __future__ import annotations

import errno
import sys
import warnings

import click

from medical_vqa.cli import data, evaluate, export, full_evaluation, serve, train
from medical_vqa.cli.terminal import DISCLAIMER, echo
from medical_vqa.errors import MedicalVqaError
from medical_vqa.registry import extra_of
from medical_vqa.runtime.devices import wait_passively

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)
"""What the system answers about a path that a person named."""


class _Commands(click.Group):
    """Lists commands in the order of the main path, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)


@click.group(cls=_Commands, epilog=DISCLAIMER, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="medical-vqa")
def cli() -> None:
    """Prepare, fine-tune, evaluate and ask models that answer questions about medical images.

    The main path: prepare, train, predict, report, ask.
    """


for _command in (
    data.prepare,
    train.train,
    evaluate.predict,
    evaluate.probe,
    evaluate.score,
    evaluate.report,
    evaluate.compare,
    evaluate.referee,
    evaluate.leaderboard,
    evaluate.judge,
    evaluate.calibrate,
    full_evaluation.evaluate,
    data.audit,
    data.convert,
    serve.ask,
    serve.serve,
    serve.app,
    serve.mcp,
    serve.verify_audit_log,
    export.export,
    export.deploy,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line: a user's mistake is one sentence on stderr and exit status 2."""
    warnings.filterwarnings("ignore", module=r"torch\.|accelerate\.")
    wait_passively()
    try:
        cli()
    except MedicalVqaError as error:
        echo(f"medical-vqa: {error}", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (extra := extra_of(error)) is None:
            raise
        command = f"pip install 'medical-vqa[{extra}]'"
        click.echo(f"medical-vqa: this needs {error.name}, which is not installed; run: {command}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno in _REFUSED:
            file = f"{str(error.filename)[:200]}: " if error.filename else ""
            echo(f"medical-vqa: {file}{error.strerror}; name another file, or change its permissions", err=True)
            sys.exit(2)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        click.echo(f"medical-vqa: the disk is full ({error.filename or error}); make room and run it again", err=True)
        sys.exit(2)
