"""The blocking client. It only waits; what to send, when to retry and what an error is come from the shared modules."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Concatenate, Self

import grpc

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
from .sync_beats import BackgroundBeats
from .this_machine import ThisMachine
from .tries import Tries


def _error(fault: grpc.RpcError) -> LictorError:
    trailers = [(item.key, item.value) for item in fault.trailing_metadata() or ()]
    return error_of(fault.code(), fault.details(), trailers)


class SyncRunner:
    """Sends prepared calls over one channel; safe to use from several threads."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self._metadata = config.metadata()
        self._last_write = LastWrite()
        self._calls: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._closed = False
        if config.tls is None:
            self._channel = grpc.insecure_channel(config.endpoint, config.options())
        else:
            self._channel = grpc.secure_channel(config.endpoint, config.tls.credentials(), config.options())

    def call(self, prepared: Prepared[T]) -> T:
        tries = Tries(self.config.limit_s(prepared.timeout_s, hot=prepared.hot), retry_safe=prepared.retry_safe)
        if self._closed:
            raise RuntimeError("this client is closed")
        send = self._calls.get(prepared.method)
        if send is None:
            send = self._calls[prepared.method] = self._channel.unary_unary(prepared.method)
        self._last_write.asked(prepared.request)
        body = prepared.request.SerializeToString()
        while True:
            try:
                answer = prepared.answer(send(body, timeout=tries.left_s(), metadata=self._metadata))
                self._last_write.seen(answer)
                return answer
            except grpc.RpcError as fault:
                wait_s = tries.wait_s(_error(fault))
            time.sleep(wait_s)  # between two tries; a blocking client blocks the thread that called it, and no other

    def iterate(self, listing: Listing[PageT, T]) -> Iterator[T]:
        token = listing.start
        while True:
            answer = self.call(listing.ask(token))
            yield from listing.items(answer)
            token = answer.next_page_token
            if not token:
                return

    def watch(self, watching: Watching) -> Iterator[LicenseChange]:
        send: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(WATCH)
        while not self._closed:
            stream = send(watching.body(), metadata=self._metadata)
            error: LictorError | None = None
            try:
                for raw in stream:
                    yield from watching.changes(raw)
            except grpc.RpcError as fault:
                error = _error(fault)
            finally:
                stream.cancel()
            time.sleep(watching.wait_s(error))  # before the next stream, in the thread of whoever iterates

    def hold(self, holding: Holding, stop: threading.Event, opened: Callable[[Callable[[], bool]], None]) -> None:
        send: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(HOLD)
        while not self._closed and not stop.is_set():
            stream = send(holding.body(), metadata=self._metadata)
            opened(stream.cancel)
            error: LictorError | None = None
            try:
                for raw in stream:
                    holding.take(raw)
            except grpc.RpcError as fault:
                error = _error(fault)
            finally:
                stream.cancel()
            if not stop.is_set():
                stop.wait(holding.wait_s(error))

    def close(self) -> None:
        self._closed = True
        self._channel.close()


class SyncNamespace:
    """Methods that go out through one runner."""

    def __init__(self, runner: SyncRunner) -> None:
        self.runner = runner


def sync_method(build: Callable[P, Prepared[T]]) -> Callable[Concatenate[SyncNamespace, P], T]:
    def method(self: SyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.runner.call(build(*args, **kwargs))

    dress(method, build)
    return method


def sync_list(build: Callable[P, Listing[PageT, T]]) -> Callable[Concatenate[SyncNamespace, P], Iterator[T]]:
    """Iterates over all pages; each is asked for when the one before is used up."""

    def method(self: SyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self.runner.iterate(build(*args, **kwargs))

    dress(method, build)
    return method


def sync_page(build: Callable[P, Listing[PageT, T]]) -> Callable[Concatenate[SyncNamespace, P], PageT]:
    """Reads the one page at `page_token`."""

    def method(self: SyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> PageT:
        listing = build(*args, **kwargs)
        return self.runner.call(listing.ask(listing.start))

    dress(method, build)
    return method


def sync_watch(build: Callable[P, Watching]) -> Callable[Concatenate[SyncNamespace, P], Iterator[LicenseChange]]:
    def method(self: SyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[LicenseChange]:
        return self.runner.watch(build(*args, **kwargs))

    dress(method, build)
    return method


class HeldSeat:
    """A seat that is held while the block runs; `grant` is the seat, `lost` says whether it is lost by now, and `error` why."""

    def __init__(self, runner: SyncRunner, holding: Holding) -> None:
        self._runner = runner
        self._holding = holding
        self._news = threading.Event()
        self._over = threading.Event()
        self._stop = threading.Event()
        self._cancel: Callable[[], object] = lambda: None
        self.error: BaseException | None = None

    @property
    def grant(self) -> SeatGrant:
        if self._holding.grant is None:
            raise RuntimeError("there is a seat once the block has begun")
        return self._holding.grant

    @property
    def lost(self) -> bool:
        return self._over.is_set()

    def wait_lost(self, timeout_s: float | None = None) -> bool:
        """Waits until the seat is lost; false where it is not after `timeout_s`."""
        return self._over.wait(timeout_s)

    def _opened(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel
        if self._stop.is_set():
            cancel()

    def _run(self) -> None:
        try:
            self._runner.hold(self._holding, self._stop, self._opened)
        except BaseException as error:  # noqa: BLE001 - it is told where the block begins, and by `error`
            self.error = error
        finally:
            self._over.set()
            self._news.set()

    def _end(self) -> None:
        self._stop.set()
        self._cancel()
        self._over.wait()

    def __enter__(self) -> Self:
        self._holding.changed = self._news.set
        threading.Thread(target=self._run, name="holding a seat", daemon=True).start()
        try:
            while self._holding.grant is None and not self.lost:
                self._news.wait()
                self._news.clear()
        except BaseException:
            self._end()
            raise
        if self.error is not None:
            raise self.error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        was_lost = self.lost
        self._end()
        if not was_lost:
            with suppress(LictorError):  # it is free after the grace
                self._runner.call(self._holding.release())


def sync_hold(build: Callable[P, Holding]) -> Callable[Concatenate[SyncNamespace, P], HeldSeat]:
    def method(self: SyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> HeldSeat:
        return HeldSeat(self.runner, build(*args, **kwargs))

    dress(method, build)
    return method


def sync_beats(build: Callable[P, Beating[Any]]) -> Callable[Concatenate[SyncNamespace, P], BackgroundBeats]:
    def method(self: SyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> BackgroundBeats:
        return BackgroundBeats(self.runner, build(*args, **kwargs))

    dress(method, build)
    return method


class Products(SyncNamespace):
    create = sync_method(catalog.create_product)
    get = sync_method(catalog.get_product)
    list = sync_list(catalog.list_products)
    page = sync_page(catalog.list_products)
    update = sync_method(catalog.update_product)
    delete = sync_method(catalog.delete_product)


class Tiers(SyncNamespace):
    create = sync_method(tiers.create_tier)
    get = sync_method(tiers.get_tier)
    list = sync_list(tiers.list_tiers)
    page = sync_page(tiers.list_tiers)
    update = sync_method(tiers.update_tier)
    delete = sync_method(tiers.delete_tier)


class Policies(SyncNamespace):
    create = sync_method(catalog.create_policy)
    get = sync_method(catalog.get_policy)
    list = sync_list(catalog.list_policies)
    page = sync_page(catalog.list_policies)
    update = sync_method(catalog.update_policy)
    delete = sync_method(catalog.delete_policy)


class Customers(SyncNamespace):
    get = sync_method(customers.get_customer)
    list = sync_list(customers.list_customers)
    page = sync_page(customers.list_customers)
    update = sync_method(customers.update_customer)
    ban = sync_method(customers.ban_customer)
    unban = sync_method(customers.unban_customer)
    create_session = sync_method(customers.create_customer_session)
    revoke_sessions = sync_method(customers.revoke_customer_sessions)


class Licenses(SyncNamespace):
    create = sync_method(licenses.create_license)
    get = sync_method(licenses.get_license)
    list = sync_list(licenses.list_licenses)
    page = sync_page(licenses.list_licenses)
    update = sync_method(licenses.update_license)
    suspend = sync_method(licenses.suspend_license)
    reinstate = sync_method(licenses.reinstate_license)
    renew = sync_method(licenses.renew_license)
    revoke = sync_method(licenses.revoke_license)
    ban = sync_method(licenses.ban_license)
    change_tier = sync_method(licenses.change_tier)
    change_policy = sync_method(licenses.change_policy)
    transfer = sync_method(licenses.transfer_license)
    check_in = sync_method(usage.check_in_license)
    increment_uses = sync_method(usage.increment_uses)
    decrement_uses = sync_method(usage.decrement_uses)
    reset_uses = sync_method(usage.reset_uses)
    delete = sync_method(licenses.delete_license)
    reveal_key = sync_method(license_keys.reveal_license_key)
    rotate_key = sync_method(license_keys.rotate_license_key)
    import_batch = sync_method(imports.import_licenses)
    events = sync_list(license_events.list_license_events)
    events_page = sync_page(license_events.list_license_events)
    issue_file = sync_method(tokens.issue_license_file)
    files = sync_list(tokens.list_license_files)
    files_page = sync_page(tokens.list_license_files)
    watch = sync_watch(watch.watch_licenses)


class Machines(SyncNamespace):
    get = sync_method(machines.get_machine)
    list = sync_list(machines.list_machines)
    page = sync_page(machines.list_machines)
    update = sync_method(machines.update_machine)
    deactivate = sync_method(machines.deactivate_machine)
    transfer = sync_method(machines.transfer_machine)
    reset_heartbeat = sync_method(machines.reset_machine_heartbeat)
    list_seats = sync_list(seats.list_seats)
    page_of_seats = sync_page(seats.list_seats)
    evict_seat = sync_method(seats.evict_seat)
    list_processes = sync_list(processes.list_processes)
    page_of_processes = sync_page(processes.list_processes)
    issue_file = sync_method(machines.issue_machine_file)
    return_file = sync_method(machines.return_machine_file)


class SigningKeys(SyncNamespace):
    rotate = sync_method(tokens.rotate_signing_key)
    revoke = sync_method(tokens.revoke_signing_key)
    list = sync_list(tokens.list_signing_keys)
    page = sync_page(tokens.list_signing_keys)
    public = sync_method(tokens.get_json_web_key_set)


class ApiKeys(SyncNamespace):
    create = sync_method(accounts.create_api_key)
    get = sync_method(accounts.get_api_key)
    list = sync_list(accounts.list_api_keys)
    page = sync_page(accounts.list_api_keys)
    rotate = sync_method(accounts.rotate_api_key)
    revoke = sync_method(accounts.revoke_api_key)


class Accounts(SyncNamespace):
    create = sync_method(accounts.create_account)
    get = sync_method(accounts.get_account)
    list = sync_list(accounts.list_accounts)
    page = sync_page(accounts.list_accounts)
    update = sync_method(accounts.update_account)
    suspend = sync_method(accounts.suspend_account)
    reinstate = sync_method(accounts.reinstate_account)


class WorkloadBindings(SyncNamespace):
    create = sync_method(workloads.create_workload_binding)
    get = sync_method(workloads.get_workload_binding)
    list = sync_list(workloads.list_workload_bindings)
    page = sync_page(workloads.list_workload_bindings)
    update = sync_method(workloads.update_workload_binding)
    delete = sync_method(workloads.delete_workload_binding)


class Lictor(SyncNamespace):
    """The blocking client: `with Lictor(api_key="sk_live_...") as client: client.validate(key=...)`."""

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
        super().__init__(SyncRunner(config))
        self.products = Products(self.runner)
        self.tiers = Tiers(self.runner)
        self.policies = Policies(self.runner)
        self.customers = Customers(self.runner)
        self.licenses = Licenses(self.runner)
        self.machines = Machines(self.runner)
        self.signing_keys = SigningKeys(self.runner)
        self.api_keys = ApiKeys(self.runner)
        self.accounts = Accounts(self.runner)
        self.workload_bindings = WorkloadBindings(self.runner)
        self._machine = ThisMachine()

    validate = sync_method(validation.validate)
    validate_batch = sync_method(validation.validate_batch)
    explain_validation = sync_method(validation.explain_validation)
    whoami = sync_method(accounts.whoami)
    activate = sync_method(machines.activate)
    deactivate = sync_method(machines.deactivate)
    heartbeat = sync_method(machines.heartbeat)
    beats = sync_beats(beats)
    heartbeat_process = sync_method(processes.heartbeat_process)
    process = sync_beats(process)
    acquire_seat = sync_method(seats.acquire_seat)
    renew_seat = sync_method(seats.renew_seat)
    release_seat = sync_method(seats.release_seat)
    hold_seat = sync_hold(hold_seat)

    def fingerprint(self, *, product: str = "") -> Fingerprint:
        """The fingerprint of this machine, read once; see `lictor.fingerprint`. Never awaited: it asks nobody.

        NoStableIdentityError where the machine has none.
        """
        return self._machine.fingerprint(product)

    @property
    def endpoint(self) -> str:
        return self.runner.config.endpoint

    def close(self) -> None:
        """Ends the connection; calls in flight fail."""
        self.runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Lictor(endpoint={self.endpoint!r})"
