"""`make soak`: a mixed load of calls for minutes, and what it does to the memory of the servers' processes.

Writes a line of JSON per second and one with the result to build/soak.jsonl, the server's log to build/soak.log.
Status 0 when every call ended as it should and nothing was logged as a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TextIO

from shared.embedded.ports import free_listen
from shared.rpc.envoy.program import obstacle
from tests.bench import processes
from tests.bench.load import NotRunError
from tests.bench.soak_load import PER_SECOND, Kind, SoakLoad
from tests.bench.trend import KIB, Memory, trend
from tests.helpers.serving import launch, settled

OUT: Final = Path("build") / "soak.jsonl"
WARM_UP_S: Final = 120.0
SHORT_RUN_SHARE: Final = 1 / 3
"""Of a run that is too short for the whole warm-up."""
LOOK_EVERY_S: Final = 1.0
SAY_EVERY_S: Final = 30.0
FAULTS: Final = ("Traceback", "unhandled exception", "InvalidStateError", "serving failed")
"""What no load of these kinds may make a server log."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Soaks; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kinds", default="", help=f"some of {','.join(Kind)}")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the usual rates")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.kinds.split(",") if name.strip()] or list(Kind)
    if unknown := [name for name in names if name not in set(Kind)]:
        parser.error(f"no such kind of call: {', '.join(unknown)}; there are {', '.join(Kind)}")
    if not (options.minutes > 0 and options.scale > 0):
        parser.error("minutes and scale must be more than 0")
    try:
        return asyncio.run(_soak(options.minutes * 60, [Kind(name) for name in names], options.scale, options.out))
    except (NotRunError, ValueError) as error:
        print(f"soak: not run: {error}", file=sys.stderr)
        return 1


async def _soak(seconds: float, kinds: Sequence[Kind], scale: float, out: Path) -> int:
    if (why := obstacle()) is not None:
        raise NotRunError(f"Envoy cannot host Python here: {why}")
    if not processes.available():
        raise NotRunError("memory is read from /proc, which this system has not")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder, out.open("w") as lines:
        listen = free_listen("127.0.0.1")
        server = launch(Path(folder), listen, {}, (sys.executable, "-m", "tests.bench.soak_app"))
        try:
            if not await settled(server, listen):
                raise NotRunError(f"the server did not start: {server.log.read_text()[-1500:]}")
            load = SoakLoad(listen.api, kinds, scale)
            names = processes.family(server.pid)
            looks = await _watch(load, names, seconds, lines)
        finally:
            await asyncio.to_thread(server.stop)
            log = server.log.read_text()
            out.with_suffix(".log").write_text(log)
        after_s = min(WARM_UP_S, seconds * SHORT_RUN_SHARE)
        result = _result(load, kinds, names, looks, after_s=after_s, log=log)
        lines.write(json.dumps(result) + "\n")
    _show(result, out)
    return int(bool(result["failed"] or result["none_of"] or result["faults"]))


async def _watch(load: SoakLoad, names: dict[int, str], seconds: float, lines: TextIO) -> list[Memory]:
    """Loads and looks. NotRunError when a process ends meanwhile."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    looks: list[Memory] = []
    start = loop.time()
    loading = asyncio.create_task(load.run(over))
    try:
        while (at_s := loop.time() - start) < seconds:
            try:
                rss = {pid: processes.rss_bytes(pid) for pid in names}
            except OSError:
                raise NotRunError("a process of the server ended by itself") from None
            looks.append(Memory(at_s, rss, load.made[Kind.BROKEN]))
            line = {
                "at_s": round(at_s, 2),
                "rss_kib": {f"{names[pid]}:{pid}": size // KIB for pid, size in rss.items()},
            }
            lines.write(json.dumps({**line, "made": dict(load.made)}) + "\n")
            lines.flush()
            if len(looks) % (SAY_EVERY_S / LOOK_EVERY_S) == 1:
                print(f"{at_s:5.0f} s  {line['rss_kib']}  {sum(load.made.values())} calls", file=sys.stderr, flush=True)
            await asyncio.wait({loading}, timeout=start + len(looks) * LOOK_EVERY_S - loop.time())
            if loading.done():
                loading.result()
    finally:
        over.set()
        await loading
    return looks


def _result(
    load: SoakLoad, kinds: Sequence[Kind], names: dict[int, str], looks: Sequence[Memory], *, after_s: float, log: str
) -> dict[str, Any]:
    return {
        "seconds": round(looks[-1].at_s, 1),
        "warm_up_s": round(after_s, 1),
        "processes": [{"name": name, **_rounded(asdict(trend(looks, pid, after_s)))} for pid, name in names.items()],
        "made": {kind.value: load.made[kind] for kind in PER_SECOND if load.made[kind]},
        "none_of": [kind.value for kind in kinds if not load.made[kind]],
        "failed": {f"{kind}: {how}": number for (kind, how), number in load.failed.items()},
        "faults": sum(any(fault in line for fault in FAULTS) for line in log.splitlines()),
    }


def _rounded(numbers: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if number is None else round(number, 1) for name, number in numbers.items()}


def _show(result: dict[str, Any], out: Path) -> None:
    print(f"{result['seconds']} s, of which the first {result['warm_up_s']} s do not count for the trend")
    for one in result["processes"]:
        broken = one["bytes_per_broken"]
        print(
            f"  {one['name']}: {one['start_kib']:,.0f} KiB at the start, {one['settled_kib']:,.0f} warmed up, "
            f"{one['end_kib']:,.0f} at the end; {one['kib_per_min']:+,.1f} KiB/min"
            + ("" if broken is None else f", {broken:+,.0f} bytes per broken stream")
        )
    print("  calls that ended as they should: " + ", ".join(f"{n} {kind}" for kind, n in result["made"].items()))
    if result["none_of"]:
        print(f"  NONE ended as it should: {', '.join(result['none_of'])}")
    for how, number in result["failed"].items():
        print(f"  FAILED {number} times: {how}")
    if result["faults"]:
        print(f"  FAULTS in the log: {result['faults']} lines, see {out.with_suffix('.log')}")
    print(f"written to {out}")


if __name__ == "__main__":
    raise SystemExit(main())
