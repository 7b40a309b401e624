"""The asyncio client. It only waits; what to send, when to retry and what an error is come from the shared modules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Concatenate, Self

import grpc.aio

from lictor.machine.v1.machine_pb2 import SeatGrant

from . import requests_accounts as accounts
from . import requests_catalog as catalog
from . import requests_customers as customers
from . import requests_imports as imports
from . import requests_license_events as license_events
from . import requests_license_keys as license_keys
from . import requests_licenses as licenses
from . import requests_machines as machines
from . import requests_processes as processes
from . import requests_seats as seats
from . import requests_tiers as tiers
from . import requests_tokens as tokens
from . import requests_usage as usage
from . import requests_validation as validation
from . import requests_watch as watch
from . import requests_workloads as workloads
from .async_beats import AsyncBackgroundBeats
from .config import DEFAULT_ENDPOINT, ClientConfig, TlsConfig
from .errors import LictorError, error_of
from .fingerprint import Fingerprint
from .last_write import LastWrite
from .prepared import Listing, P, PageT, Prepared, T, dress
from .requests_beats import Beating, beats, process
from .requests_hold import METHOD as HOLD
from .requests_hold import Holding, hold_seat
from .requests_watch import METHOD as WATCH
from .requests_watch import LicenseChange, Watching
from .this_machine import ThisMachine
from .tries import Tries


def _error(fault: grpc.aio.AioRpcError) -> LictorError:
    return error_of(fault.code(), fault.details(), list(fault.trailing_metadata() or ()))


class AsyncRunner:
    """Sends prepared calls over one channel, which belongs to the event loop of the first call."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self._metadata = config.metadata()
        self._last_write = LastWrite()
        self._calls: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._channel: grpc.aio.Channel | None = None
        self._closed = False

    def _open(self) -> grpc.aio.Channel:
        # Not in __init__: a client made before the loop runs would tie its channel to another loop.
        if self._channel is None:
            config = self.config
            if config.tls is None:
                self._channel = grpc.aio.insecure_channel(config.endpoint, config.options())
            else:
                credentials = config.tls.credentials()
                self._channel = grpc.aio.secure_channel(config.endpoint, credentials, config.options())
        return self._channel

    async def call(self, prepared: Prepared[T]) -> T:
        tries = Tries(self.config.limit_s(prepared.timeout_s, hot=prepared.hot), retry_safe=prepared.retry_safe)
        if self._closed:
            raise RuntimeError("this client is closed")
        send = self._calls.get(prepared.method)
        if send is None:
            send = self._calls[prepared.method] = self._open().unary_unary(prepared.method)
        self._last_write.asked(prepared.request)
        body = prepared.request.SerializeToString()
        while True:
            try:
                answer = prepared.answer(await send(body, timeout=tries.left_s(), metadata=self._metadata))
                self._last_write.seen(answer)
                return answer
            except grpc.aio.AioRpcError as fault:
                wait_s = tries.wait_s(_error(fault))
            await asyncio.sleep(wait_s)

    async def iterate(self, listing: Listing[PageT, T]) -> AsyncIterator[T]:
        token = listing.start
        while True:
            answer = await self.call(listing.ask(token))
            for item in listing.items(answer):
                yield item
            token = answer.next_page_token
            if not token:
                return

    async def watch(self, watching: Watching) -> AsyncIterator[LicenseChange]:
        send: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._open().unary_stream(WATCH)
        while not self._closed:
            stream = send(watching.body(), metadata=self._metadata)
            error: LictorError | None = None
            try:
                async for raw in stream:
                    for change in watching.changes(raw):
                        yield change
            except grpc.aio.AioRpcError as fault:
                error = _error(fault)
            finally:
                stream.cancel()
            await asyncio.sleep(watching.wait_s(error))

    async def hold(self, holding: Holding) -> None:
        send: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._open().unary_stream(HOLD)
        while not self._closed:
            stream = send(holding.body(), metadata=self._metadata)
            error: LictorError | None = None
            try:
                async for raw in stream:
                    holding.take(raw)
            except grpc.aio.AioRpcError as fault:
                error = _error(fault)
            finally:
                stream.cancel()
            await asyncio.sleep(holding.wait_s(error))

    async def close(self) -> None:
        self._closed = True
        if self._channel is not None:
            await self._channel.close()


class AsyncNamespace:
    """Methods that go out through one runner."""

    def __init__(self, runner: AsyncRunner) -> None:
        self.runner = runner


def async_method(
    build: Callable[P, Prepared[T]],
) -> Callable[Concatenate[AsyncNamespace, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.runner.call(build(*args, **kwargs))

    dress(method, build)
    return method


def async_list(
    build: Callable[P, Listing[PageT, T]],
) -> Callable[Concatenate[AsyncNamespace, P], AsyncIterator[T]]:
    """Iterates over all pages; each is asked for when the one before is used up."""

    def method(self: AsyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self.runner.iterate(build(*args, **kwargs))

    dress(method, build)
    return method


def async_page(
    build: Callable[P, Listing[PageT, T]],
) -> Callable[Concatenate[AsyncNamespace, P], Coroutine[Any, Any, PageT]]:
    """Reads the one page at `page_token`."""

    async def method(self: AsyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> PageT:
        listing = build(*args, **kwargs)
        return await self.runner.call(listing.ask(listing.start))

    dress(method, build)
    return method


def async_watch(
    build: Callable[P, Watching],
) -> Callable[Concatenate[AsyncNamespace, P], AsyncIterator[LicenseChange]]:
    def method(self: AsyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[LicenseChange]:
        return self.runner.watch(build(*args, **kwargs))

    dress(method, build)
    return method


class AsyncHeldSeat:
    """A seat that is held while the block runs; `grant` is the seat, `lost` says whether it is lost by now, and `error` why."""

    def __init__(self, runner: AsyncRunner, holding: Holding) -> None:
        self._runner = runner
        self._holding = holding
        self._task: asyncio.Task[None] | None = None

    @property
    def grant(self) -> SeatGrant:
        if self._holding.grant is None:
            raise RuntimeError("there is a seat once the block has begun")
        return self._holding.grant

    @property
    def lost(self) -> bool:
        return self._task is None or self._task.done()

    @property
    def error(self) -> BaseException | None:
        return self._task.exception() if self._task is not None and self._task.done() else None

    async def wait_lost(self) -> None:
        """Waits until the seat is lost."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def __aenter__(self) -> Self:
        changed = asyncio.Event()
        self._holding.changed = changed.set
        self._task = asyncio.create_task(self._runner.hold(self._holding), name="holding a seat")
        try:
            while self._holding.grant is None and not self._task.done():
                news = asyncio.create_task(changed.wait())
                await asyncio.wait({self._task, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                changed.clear()
        except BaseException:
            self._task.cancel()
            raise
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        was_lost = self.lost
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if not was_lost:
            with suppress(LictorError):  # it is free after the grace
                await self._runner.call(self._holding.release())


def async_hold(build: Callable[P, Holding]) -> Callable[Concatenate[AsyncNamespace, P], AsyncHeldSeat]:
    def method(self: AsyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> AsyncHeldSeat:
        return AsyncHeldSeat(self.runner, build(*args, **kwargs))

    dress(method, build)
    return method


def async_beats(build: Callable[P, Beating[Any]]) -> Callable[Concatenate[AsyncNamespace, P], AsyncBackgroundBeats]:
    def method(self: AsyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> AsyncBackgroundBeats:
        return AsyncBackgroundBeats(self.runner, build(*args, **kwargs))

    dress(method, build)
    return method


class AsyncProducts(AsyncNamespace):
    create = async_method(catalog.create_product)
    get = async_method(catalog.get_product)
    list = async_list(catalog.list_products)
    page = async_page(catalog.list_products)
    update = async_method(catalog.update_product)
    delete = async_method(catalog.delete_product)


class AsyncTiers(AsyncNamespace):
    create = async_method(tiers.create_tier)
    get = async_method(tiers.get_tier)
    list = async_list(tiers.list_tiers)
    page = async_page(tiers.list_tiers)
    update = async_method(tiers.update_tier)
    delete = async_method(tiers.delete_tier)


class AsyncPolicies(AsyncNamespace):
    create = async_method(catalog.create_policy)
    get = async_method(catalog.get_policy)
    list = async_list(catalog.list_policies)
    page = async_page(catalog.list_policies)
    update = async_method(catalog.update_policy)
    delete = async_method(catalog.delete_policy)


class AsyncCustomers(AsyncNamespace):
    get = async_method(customers.get_customer)
    list = async_list(customers.list_customers)
    page = async_page(customers.list_customers)
    update = async_method(customers.update_customer)
    ban = async_method(customers.ban_customer)
    unban = async_method(customers.unban_customer)
    create_session = async_method(customers.create_customer_session)
    revoke_sessions = async_method(customers.revoke_customer_sessions)


class AsyncLicenses(AsyncNamespace):
    create = async_method(licenses.create_license)
    get = async_method(licenses.get_license)
    list = async_list(licenses.list_licenses)
    page = async_page(licenses.list_licenses)
    update = async_method(licenses.update_license)
    suspend = async_method(licenses.suspend_license)
    reinstate = async_method(licenses.reinstate_license)
    renew = async_method(licenses.renew_license)
    revoke = async_method(licenses.revoke_license)
    ban = async_method(licenses.ban_license)
    change_tier = async_method(licenses.change_tier)
    change_policy = async_method(licenses.change_policy)
    transfer = async_method(licenses.transfer_license)
    check_in = async_method(usage.check_in_license)
    increment_uses = async_method(usage.increment_uses)
    decrement_uses = async_method(usage.decrement_uses)
    reset_uses = async_method(usage.reset_uses)
    delete = async_method(licenses.delete_license)
    reveal_key = async_method(license_keys.reveal_license_key)
    rotate_key = async_method(license_keys.rotate_license_key)
    import_batch = async_method(imports.import_licenses)
    events = async_list(license_events.list_license_events)
    events_page = async_page(license_events.list_license_events)
    issue_file = async_method(tokens.issue_license_file)
    files = async_list(tokens.list_license_files)
    files_page = async_page(tokens.list_license_files)
    watch = async_watch(watch.watch_licenses)


class AsyncMachines(AsyncNamespace):
    get = async_method(machines.get_machine)
    list = async_list(machines.list_machines)
    page = async_page(machines.list_machines)
    update = async_method(machines.update_machine)
    deactivate = async_method(machines.deactivate_machine)
    transfer = async_method(machines.transfer_machine)
    reset_heartbeat = async_method(machines.reset_machine_heartbeat)
    list_seats = async_list(seats.list_seats)
    page_of_seats = async_page(seats.list_seats)
    evict_seat = async_method(seats.evict_seat)
    list_processes = async_list(processes.list_processes)
    page_of_processes = async_page(processes.list_processes)
    issue_file = async_method(machines.issue_machine_file)
    return_file = async_method(machines.return_machine_file)


class AsyncSigningKeys(AsyncNamespace):
    rotate = async_method(tokens.rotate_signing_key)
    revoke = async_method(tokens.revoke_signing_key)
    list = async_list(tokens.list_signing_keys)
    page = async_page(tokens.list_signing_keys)
    public = async_method(tokens.get_json_web_key_set)


class AsyncApiKeys(AsyncNamespace):
    create = async_method(accounts.create_api_key)
    get = async_method(accounts.get_api_key)
    list = async_list(accounts.list_api_keys)
    page = async_page(accounts.list_api_keys)
    rotate = async_method(accounts.rotate_api_key)
    revoke = async_method(accounts.revoke_api_key)


class AsyncAccounts(AsyncNamespace):
    create = async_method(accounts.create_account)
    get = async_method(accounts.get_account)
    list = async_list(accounts.list_accounts)
    page = async_page(accounts.list_accounts)
    update = async_method(accounts.update_account)
    suspend = async_method(accounts.suspend_account)
    reinstate = async_method(accounts.reinstate_account)


class AsyncWorkloadBindings(AsyncNamespace):
    create = async_method(workloads.create_workload_binding)
    get = async_method(workloads.get_workload_binding)
    list = async_list(workloads.list_workload_bindings)
    page = async_page(workloads.list_workload_bindings)
    update = async_method(workloads.update_workload_binding)
    delete = async_method(workloads.delete_workload_binding)


class AsyncLictor(AsyncNamespace):
    """The asyncio client: `async with AsyncLictor(api_key="sk_live_...") as client: await client.validate(key=...)`."""

    def __init__(
        self,
        *,
        api_key: str | None = None,
        license_key: str | None = None,
        endpoint: str = DEFAULT_ENDPOINT,
        timeout_s: float | None = None,
        tls: TlsConfig | None = None,
        insecure: bool = False,
    ) -> None:
        config = ClientConfig.of_caller(
            api_key=api_key, license_key=license_key, endpoint=endpoint, timeout_s=timeout_s, tls=tls, insecure=insecure
        )
        super().__init__(AsyncRunner(config))
        self.products = AsyncProducts(self.runner)
        self.tiers = AsyncTiers(self.runner)
        self.policies = AsyncPolicies(self.runner)
        self.customers = AsyncCustomers(self.runner)
        self.licenses = AsyncLicenses(self.runner)
        self.machines = AsyncMachines(self.runner)
        self.signing_keys = AsyncSigningKeys(self.runner)
        self.api_keys = AsyncApiKeys(self.runner)
        self.accounts = AsyncAccounts(self.runner)
        self.workload_bindings = AsyncWorkloadBindings(self.runner)
        self._machine = ThisMachine()

    validate = async_method(validation.validate)
    validate_batch = async_method(validation.validate_batch)
    explain_validation = async_method(validation.explain_validation)
    whoami = async_method(accounts.whoami)
    activate = async_method(machines.activate)
    deactivate = async_method(machines.deactivate)
    heartbeat = async_method(machines.heartbeat)
    beats = async_beats(beats)
    heartbeat_process = async_method(processes.heartbeat_process)
    process = async_beats(process)
    acquire_seat = async_method(seats.acquire_seat)
    renew_seat = async_method(seats.renew_seat)
    release_seat = async_method(seats.release_seat)
    hold_seat = async_hold(hold_seat)

    def fingerprint(self, *, product: str = "") -> Fingerprint:
        """The fingerprint of this machine, read once; see `lictor.fingerprint`. Never awaited: it asks nobody.

        NoStableIdentityError where the machine has none.
        """
        return self._machine.fingerprint(product)

    @property
    def endpoint(self) -> str:
        return self.runner.config.endpoint

    async def close(self) -> None:
        """Ends the connection; calls in flight fail."""
        await self.runner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncLictor(endpoint={self.endpoint!r})"
