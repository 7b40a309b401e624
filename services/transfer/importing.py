"""`lictor licenses import`: a file of licenses in batches, several at a time, each exactly once however often it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from lictor import AsyncLictor, LictorError
from lictor.common.v1.common_pb2 import Mode
from lictor.license.v1.license_service_pb2 import ImportLicensesResponse

from services.transfer.batches import Cut, Entry, Fault, cut, digest, entry_of, faults_of, keys_of, request_id
from services.transfer.journal import Batch, Header, Journal, State
from services.transfer.lines import Line, LineError, blocks, outline
from services.transfer.outputs import KeysFile, replace_file
from services.transfer.patience import patiently
from services.transfer.progress import Progress
from services.transfer.trying import CALL_TIMEOUT_S, DryRun, ImportOptions, Summary, foresee
from shared.clock import SystemClock

FORGOTTEN_AFTER_S: Final = 23 * 3600.0
"""An hour before the service forgets a request id, since clocks differ and a call takes its time."""


_ABOUT_ITEMS: Final = frozenset({"FIELD_INVALID", "KEY_TAKEN", "EXTERNAL_ID_TAKEN"})
"""Refusals of a batch as a whole: nothing of it was done, by this call or by one before with its request id."""


class StoppedError(Exception):
    """The import did not come to its end; the message says why, and how to go on."""


async def import_file(client: AsyncLictor, options: ImportOptions, tell: Callable[[Summary], None]) -> Summary:
    """Runs, or goes on; `tell` is called with what came of it before the end, be it good or bad.

    Raises StoppedError, JournalError, LictorError, OSError, ValueError.
    """
    who = await patiently(client.whoami, options.patience_s)
    of = await asyncio.to_thread(outline, options.file)
    header = Header(
        who.account_id, Mode.Kind.Name(who.mode), of.sha256, options.batch_lines, options.assign_external_ids
    )
    if options.dry_run:
        foreseen = await DryRun(client, options, header, of.lines).run()
        tell(foreseen)
        return foreseen
    with ExitStack() as stack:
        goes_on = options.journal.exists()
        journal = stack.enter_context(Journal.open(options.journal, header))
        keys_file = None
        if options.keys_out is not None:
            keys_file = stack.enter_context(KeysFile(options.keys_out, goes_on=goes_on and bool(journal.batches)))
        return await _Run(client, options, journal, keys_file, of.lines).run(tell)


class _Run:
    """One run of an import."""

    def __init__(
        self, client: AsyncLictor, options: ImportOptions, journal: Journal, keys_file: KeysFile | None, lines: int
    ) -> None:
        self._client, self._options, self._journal, self._keys = client, options, journal, keys_file
        self._header = journal.header
        self._summary = Summary()
        self._progress = Progress("lines", lines)
        self._blocks: Iterator[tuple[int, Sequence[Line]]] = blocks(options.file, self._header.batch_lines)
        self._failure: Exception | None = None

    async def run(self, tell: Callable[[Summary], None]) -> Summary:
        # A block's batches go one after the other, so that what is cut off a block never depends on what else is done.
        async with asyncio.TaskGroup() as group:
            for _ in range(self._options.in_flight):
                group.create_task(self._work())
        self._summary.per_s = self._progress.per_s
        self._progress.end()
        self._write_rejects()
        self._summary.faults.sort(key=lambda fault: fault.line)
        tell(self._summary)
        if self._failure is not None:
            raise self._failure
        return self._summary

    async def _work(self) -> None:
        """Takes blocks until there are none, or one failed; then those of the others come to their end."""
        while self._failure is None and (found := next(self._blocks, None)) is not None:
            number, lines = found
            try:
                await self._block(number, lines)
            except (LictorError, StoppedError, OSError) as error:
                self._failure = self._failure or error

    async def _block(self, number: int, lines: Sequence[Line]) -> None:
        part = 0
        while lines:
            batch = self._journal.batches.get((number, part))
            if batch is None:
                lines = await self._fresh(number, part, lines)
            else:
                lines = await self._known(batch, lines)
            part += 1

    async def _known(self, batch: Batch, lines: Sequence[Line]) -> Sequence[Line]:
        """Goes on with a batch that an earlier run sent; the lines after it."""
        mine = [line for line in lines if line.number <= batch.last]
        try:
            entries = [entry_of(self._header, line) for line in mine if line.number not in batch.skipped]
        except LineError:
            entries = []
        where = f"lines {batch.first} to {batch.last} of {self._options.file}"
        if digest(entries) != batch.sha256:
            raise StoppedError(
                f"{where} were sent by an earlier run, and have changed since: put them back as they were. "
                "Lines that were refused may change, and may not be added or taken away"
            )
        if batch.state is State.DONE:
            self._summary.seen += len(mine)
            self._summary.skipped += len(batch.skipped)
            self._summary.before += batch.made + batch.there
            self._summary.made += batch.made
            self._summary.there += batch.there
            self._progress.was_done(len(mine))
            return lines[len(mine) :]
        age_s = SystemClock().now().timestamp() - batch.sent_at
        if age_s > FORGOTTEN_AFTER_S and batch.unnamed and not self._options.send_uncertain:
            raise StoppedError(
                f"{where} were sent {age_s / 3600:.0f} hours ago, and no answer came. The service remembers a call for 24 "
                f"hours, and {batch.unnamed} of these licenses have no external_id: sent again, they may be there twice. "
                "Look whether they are there. If they are not, run with --send-uncertain"
            )
        if faults := await self._send(batch, entries):
            self._journal.refused(batch)
            self._skip(faults)
            return await self._fresh(batch.block, batch.part, lines)
        self._summary.seen += len(mine)
        self._summary.skipped += len(batch.skipped)
        self._progress.add(len(mine))
        return lines[len(mine) :]

    async def _fresh(self, number: int, part: int, lines: Sequence[Line]) -> Sequence[Line]:
        """Sends what fits of lines that were not sent yet; the lines after it."""
        found = await asyncio.to_thread(cut, self._header, lines)
        mine = lines[: found.lines]
        skipped = self._skip(found.faults)
        entries: Sequence[Entry] = found.entries
        while True:
            batch = Batch(
                number, part, mine[0].number, mine[-1].number, digest(entries), SystemClock().now().timestamp(),
                Cut(entries, (), 0).unnamed, tuple(sorted(skipped)),
            )  # fmt: skip
            self._refuse_lost_keys(entries)
            self._journal.sent(batch)
            if not entries:
                self._journal.done(batch, made=0, there=0)
                break
            if not (faults := await self._send(batch, entries)):
                break
            self._journal.refused(batch)
            skipped |= self._skip(faults)
            entries = _without(entries, skipped)
        self._summary.seen += len(mine)
        self._summary.skipped += len(skipped)
        self._progress.add(len(mine))
        return lines[found.lines :]

    def _skip(self, faults: Sequence[Fault]) -> set[int]:
        """The lines to leave out. StoppedError where none is to be left out."""
        self._summary.faults += faults
        if faults and not self._options.skip_bad:
            raise StoppedError(
                "nothing of the batch that they stand in was stored. Mend these lines, without adding or taking away any, "
                "and run the same again; or run with --skip-bad, which leaves them out"
            )
        return {fault.line for fault in faults}

    def _refuse_lost_keys(self, entries: Sequence[Entry]) -> None:
        if self._keys is None and (bare := next((entry for entry in entries if not entry.item.key), None)):
            raise StoppedError(
                f"line {bare.line.number} has no key, so one will be generated: say with --keys-out where to put such keys"
            )

    async def _send(self, batch: Batch, entries: Sequence[Entry]) -> list[Fault]:
        """Sends a batch until it is answered; what is bad of it, and nothing is stored then."""
        items = [entry.item for entry in entries]
        rid = request_id(self._header, batch.block, batch.part, batch.sha256)

        async def attempt() -> ImportLicensesResponse | LictorError:
            try:
                return await self._client.licenses.import_batch(items, request_id=rid, timeout_s=CALL_TIMEOUT_S)
            except LictorError as error:
                if error.reason not in _ABOUT_ITEMS:
                    raise
                return error

        while isinstance(answer := await patiently(attempt, self._options.patience_s), LictorError):
            if faults := await self._all_faults(entries, answer):
                return faults
        if self._keys is not None:
            self._keys.write(keys_of(entries, answer.licenses))
        there = sum(one.already_there for one in answer.licenses)
        self._journal.done(batch, made=len(entries) - there, there=there)
        self._summary.made += len(entries) - there
        self._summary.there += there
        return []

    async def _all_faults(self, entries: Sequence[Entry], error: LictorError) -> list[Fault]:
        """Everything that is bad of a refused batch: an error has room for the first of it only. None where another call
        made what this one was to make, just before it: then it is to be sent again."""
        answer = await foresee(self._client, entries, self._options.patience_s)
        bad = answer.violations or error.violations
        return faults_of(entries, [(one.field, f"{one.reason}: {one.description}") for one in bad])

    def _write_rejects(self) -> None:
        wanted = set(self._journal.skipped_lines())
        if wanted:
            found = blocks(self._options.file, self._header.batch_lines)
            replace_file(
                self._options.rejects, (line.raw for _, lines in found for line in lines if line.number in wanted)
            )


def _without(entries: Sequence[Entry], skipped: set[int]) -> Sequence[Entry]:
    return [entry for entry in entries if entry.line.number not in skipped]
