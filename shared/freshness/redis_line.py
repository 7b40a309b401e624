"""One connection to Redis, asked one question at a time, and left alone for a while when it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextvars import Context
from typing import Any, Final, Protocol, cast

from redis.asyncio import connection as driver
from redis.exceptions import ConnectionError as DroppedError
from redis.exceptions import RedisError, ResponseError

from shared.clock import Clock
from shared.freshness.breaker import Breaker, State
from shared.observe.logging import get_logger

CONNECT_WITHIN_S: Final = 1.0
"""For the connection, TLS and the log-in, which go on in the background while callers give up."""

TURNS: Final = 8
"""How often the loop comes round after a question's time is over, before it is given up: what a busy process has not come to
read by then is no fault of Redis."""

Command = Sequence[bytes]

_log = get_logger(__name__)


class RedisUrlError(ValueError):
    """The address is not one that the driver can use. The message does not show it: it may hold a password."""


class LineError(Exception):
    """No answer, for whatever reason; it has been counted where it was to be."""


class Connection(Protocol):
    """What we use of the driver's connection. Its client above that costs 40 us more for each question."""

    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...
    async def can_read(self) -> bool: ...
    def pack_commands(self, commands: Iterable[Command]) -> list[bytes]: ...
    async def send_packed_command(self, command: list[bytes], check_health: bool = True) -> None: ...
    async def read_response(self, disable_decoding: bool = False, timeout: float | None = None) -> object: ...  # noqa: ASYNC109 - the driver's


_Parser: Any = driver.DefaultParser


class _BoundedParser(_Parser):
    """Gives up a reply that is longer than any that we ask for: the driver would keep all of it in memory."""

    limit_bytes = 0
    _taken_bytes = 0

    async def read_response(self, *args: Any, **kwargs: Any) -> object:
        self._taken_bytes = 0
        parser: Any = super()
        return await parser.read_response(*args, **kwargs)

    async def read_from_socket(self) -> bool:
        chunk: bytes = await self._stream.read(self._read_size)
        self._taken_bytes += len(chunk)
        if not chunk or self._taken_bytes > self.limit_bytes:
            raise DroppedError("the reply ended early, or does not end")
        self._reader.feed(chunk)
        return True


def connection_to(url: str, password: str | None, reply_limit_bytes: int) -> Connection:
    """A connection, not made yet, to `redis://`, `rediss://` or `unix://`, with the driver's options in the query.

    `password` goes before one in the address. What the options say of time-outs,
    retries and the protocol is overruled. Raises RedisUrlError.
    """
    limited = type("Parser", (_BoundedParser,), {"limit_bytes": reply_limit_bytes})
    ours: dict[str, Any] = {
        "parser_class": limited,
        "protocol": 2,  # nothing of RESP3 is used, and nothing is pushed that was not asked for
        "retry": None,
        "retry_on_error": [],
        "retry_on_timeout": False,
        "socket_timeout": None,  # ours is one for the whole question
        "socket_connect_timeout": CONNECT_WITHIN_S,
        "health_check_interval": 0,
        "driver_info": None,
        "decode_responses": False,
    }
    if password is not None:
        ours["password"] = password
    try:
        parsed = cast(dict[str, Any], driver.parse_url(url))
        made = parsed.pop("connection_class", driver.Connection)
        return cast(Connection, made(**parsed | ours))
    except (ValueError, TypeError, RedisError):
        raise RedisUrlError("not an address of a Redis: redis://, rediss:// or unix://, with known options") from None


async def drop(connection: Connection) -> None:
    """Ends a connection at once; it can be made again."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await connection.disconnect(nowait=True)


@contextlib.asynccontextmanager
async def _read_by(deadline: float) -> AsyncGenerator[None]:
    """TimeoutError inside once that is over, and what had come by then has been read."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as until:

        def over(turns: int) -> None:
            nonlocal waiting
            if turns:
                waiting = loop.call_soon(over, turns - 1)
            else:
                until.reschedule(loop.time())

        waiting: asyncio.Handle = loop.call_at(deadline, over, TURNS)
        try:
            yield
        finally:
            waiting.cancel()


class Line:
    """One task at a time asks; nothing is asked twice. Whatever goes wrong is a LineError."""

    def __init__(self, name: str, connection: Connection, clock: Clock) -> None:
        self._name = name
        self._connection = connection
        self._breaker = Breaker(clock)
        self._is_up = False
        self._connecting: asyncio.Task[bool] | None = None

    @property
    def state(self) -> State:
        return self._breaker.state

    def usable(self) -> bool:
        """Whether to ask. Where the breaker's pause is over this begins the probe, for which nobody has to wait."""
        if self._breaker.state is State.CLOSED:
            return True
        if self._breaker.take_probe():
            self._begin_to_connect()
        return False

    async def ask(self, commands: Sequence[Command], within_s: float) -> list[object]:
        """A reply for each command; what Redis refused is a ResponseError among them. LineError where they take longer."""
        if not self.usable():
            raise LineError
        deadline = asyncio.get_running_loop().time() + within_s
        await self._await_connection(deadline)
        try:
            async with _read_by(deadline):
                await self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
                replies = [await self._reply() for _ in commands]
        except Exception as error:
            await self._drop()
            self._failed(error)
            raise LineError from error
        except BaseException:
            await self._drop()
            raise
        refused = next((reply for reply in replies if isinstance(reply, ResponseError)), None)
        if refused is None:
            self._breaker.succeeded()
        else:
            self._failed(refused)
        return replies

    async def close(self) -> None:
        """Ends the connection; whoever asks must have been ended before."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await self._drop()

    async def _await_connection(self, deadline: float) -> None:
        if self._is_up:
            # What can be read before a question is the end, or an answer that nobody waits for.
            with contextlib.suppress(RedisError, OSError):
                if not await self._connection.can_read():
                    return
            await self._drop()
        try:
            async with asyncio.timeout_at(deadline):
                up = await asyncio.shield(self._begin_to_connect())
        except TimeoutError as error:  # the connecting goes on, for the next
            self._failed(error)
            raise LineError from error
        if not up:
            raise LineError

    def _begin_to_connect(self) -> asyncio.Task[bool]:
        if self._connecting is None:
            # Of no call's context: it outlives the one that it began in.
            self._connecting = asyncio.create_task(self._connect(), name=f"redis {self._name}", context=Context())
        return self._connecting

    async def _connect(self) -> bool:
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await self._connection.connect()
                await self._connection.send_packed_command(self._connection.pack_commands([(b"PING",)]), False)
                self._is_up = await self._connection.read_response(disable_decoding=True) == b"PONG"
            if not self._is_up:
                raise DroppedError("it does not answer as Redis does")
        except Exception as error:  # noqa: BLE001 - whatever the other side makes the driver raise
            await self._drop()
            self._failed(error)
        else:
            if self._breaker.state is not State.CLOSED:
                self._breaker.succeeded()
                _log.info("Redis answers again", line=self._name)
        finally:
            self._connecting = None
        return self._is_up

    async def _reply(self) -> object:
        try:
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error

    async def _drop(self) -> None:
        self._is_up = False
        await drop(self._connection)

    def _failed(self, error: Exception) -> None:
        if self._breaker.failed():
            _log.warning("Redis is left alone for a while", line=self._name, error=type(error).__name__)
