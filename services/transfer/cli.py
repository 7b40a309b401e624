"""`lictor licenses`: the options of import and export, and what is said at the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from services.options import DEFAULT_STATE, ApiKey, CaFile, CertFile, Endpoint, KeyFile, StateDir

if TYPE_CHECKING:
    from lictor import AsyncLictor

    from services.transfer.trying import Summary

T = TypeVar("T")

MOST_TOLD = 200
"""Faults that are printed; the others are counted."""
STOPPED_BY_HAND = 130

licenses = typer.Typer(no_args_is_help=True, help="Licenses from and to files, over the API.")


@licenses.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSON Lines: one license a line.", exists=True, dir_okay=False)],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every line, and store nothing.")] = False,
    keys_out: Annotated[
        Path | None, typer.Option(help="Where generated keys go, mode 0600; needed where lines have no key.")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="What was sent and confirmed. Default: FILE.journal, beside the file.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out; they go to --rejects.")] = False,
    rejects: Annotated[
        Path | None, typer.Option(help="Where --skip-bad puts bad lines, mode 0600. Default: FILE.rejects.")
    ] = None,
    assign_external_ids: Annotated[
        bool, typer.Option("--assign-external-ids", help="Give lines without an external_id one of their own.")
    ] = False,
    send_uncertain: Annotated[
        bool, typer.Option("--send-uncertain", help="Send again what was sent over 23 hours ago without an answer.")
    ] = False,
    in_flight: Annotated[int, typer.Option(min=1, max=64, help="Batches under way at a time.")] = 4,
    batch_lines: Annotated[int, typer.Option(min=1, max=1000, help="Lines a batch.")] = 500,
    patience_s: Annotated[
        float, typer.Option("--patience", min=0, help="Seconds to go on trying while the service does not answer.")
    ] = 300.0,
    endpoint: Endpoint = "",
    api_key: ApiKey = None,
    state_dir: StateDir = DEFAULT_STATE,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Take in licenses from a file. Stopped or killed, run the same again: it goes on, and nothing comes twice."""
    from services.transfer.importing import import_file  # noqa: PLC0415 - loads the client; `--help` need not
    from services.transfer.trying import ImportOptions  # noqa: PLC0415

    options = ImportOptions(
        file=file,
        journal=journal or file.with_name(file.name + ".journal"),
        keys_out=keys_out,
        rejects=rejects or file.with_name(file.name + ".rejects"),
        dry_run=dry_run,
        skip_bad=skip_bad,
        assign_external_ids=assign_external_ids,
        send_uncertain=send_uncertain,
        in_flight=in_flight,
        batch_lines=batch_lines,
        patience_s=patience_s,
    )
    summary = _with_client(
        lambda client: import_file(client, options, _say_faults),
        endpoint,
        api_key,
        state_dir,
        (ca_file, cert_file, key_file),
    )
    _say(_words(summary, dry_run=dry_run))
    if summary.skipped:
        _say(f"{summary.skipped:,} lines were left out; they are in {options.rejects}")
    if dry_run and summary.faults:
        raise typer.Exit(1)


def _words(summary: Summary, *, dry_run: bool) -> str:
    if dry_run:
        bad = len({fault.line for fault in summary.faults})
        whether = f"{bad:,} of {summary.seen:,} lines are bad" if bad else f"{summary.seen:,} lines are good"
        there = f", {summary.there:,} licenses are there already" if summary.there else ""
        return f"{whether}{there}; nothing was stored"
    earlier = f" ({summary.before:,} of them confirmed by an earlier run)" if summary.before else ""
    return (
        f"{summary.seen:,} lines: {summary.made:,} licenses made, {summary.there:,} there already{earlier}; "
        f"{summary.per_s:,.0f} lines/s"
    )


@licenses.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(help="Default: standard output.")] = None,
    *,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="With keys that are stored (scope licenses:reveal; each is an event).")
    ] = False,
    patience_s: Annotated[
        float, typer.Option("--patience", min=0, help="Seconds to go on trying while the service does not answer.")
    ] = 300.0,
    endpoint: Endpoint = "",
    api_key: ApiKey = None,
    state_dir: StateDir = DEFAULT_STATE,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Write every license as a line that `lictor licenses import` takes. Stopped, run the same again: it goes on."""
    from services.transfer.exporting import ExportOptions, export_file  # noqa: PLC0415

    if with_keys and file is None:
        _refuse("--with-keys needs a FILE: keys do not belong on a screen")
    options = ExportOptions(file, with_keys, patience_s)
    done = _with_client(
        lambda client: export_file(client, options), endpoint, api_key, state_dir, (ca_file, cert_file, key_file)
    )
    _say(f"{done.licenses:,} licenses, {done.per_s:,.0f}/s")
    if done.without_key:
        _say(f"{done.without_key:,} keys are not stored: an import gives these licenses new ones")
    if done.unnamed_policies:
        _say(
            f"{done.unnamed_policies} policies have no external_id, and are named by an id that no other account knows"
        )


def _with_client(
    work: Callable[[AsyncLictor], Awaitable[T]],
    endpoint: str,
    api_key: str | None,
    state_dir: Path,
    files: tuple[Path | None, Path | None, Path | None],
) -> T:
    """Runs it with a client, and ends the command with a line for what can go wrong."""
    from lictor import AsyncLictor, LictorError  # noqa: PLC0415

    from services.call import CallUsageError, render_error, tls_of  # noqa: PLC0415
    from services.transfer.importing import StoppedError  # noqa: PLC0415
    from services.transfer.journal import JournalError  # noqa: PLC0415
    from services.up import known_api_key, known_endpoint  # noqa: PLC0415

    async def run() -> T:
        key = api_key if api_key or files[1] else known_api_key(state_dir)
        async with AsyncLictor(
            api_key=key or None, endpoint=endpoint or known_endpoint(state_dir), tls=tls_of(*files)
        ) as client:
            return await work(client)

    try:
        return asyncio.run(run())
    except LictorError as error:
        _refuse(render_error(error))
    except (StoppedError, JournalError, CallUsageError, OSError, ValueError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        _say("stopped; run the same again to go on")
        raise typer.Exit(STOPPED_BY_HAND) from None


def _say_faults(summary: Summary) -> None:
    """Bad lines, before whatever the end is."""
    for fault in summary.faults[:MOST_TOLD]:
        _say(str(fault))
    if len(summary.faults) > MOST_TOLD:
        _say(f"... and {len(summary.faults) - MOST_TOLD:,} more")


def _say(line: str) -> None:
    """To standard error: an export may be written to the other."""
    sys.stderr.write(line + "\n")


def _refuse(words: str) -> NoReturn:
    _say(f"lictor: {words}")
    raise typer.Exit(1)
