"""`lictor`: the command line. Each command is a thin door to the module that does the work."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from services.options import DEFAULT_STATE, ApiKey, CaFile, CertFile, Endpoint, KeyFile, StateDir
from services.transfer.cli import licenses
from shared.settings import SettingsError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
keys = typer.Typer(no_args_is_help=True, help="Keys of operators, and the sealing of license keys.")
app.add_typer(keys, name="keys")
app.add_typer(licenses, name="licenses")
file = typer.Typer(no_args_is_help=True, help="License and machine files.")
app.add_typer(file, name="file")
config = typer.Typer(no_args_is_help=True, help="The settings of a serving process.")
app.add_typer(config, name="config")

AsJson = Annotated[bool, typer.Option("--json", help="Say it as JSON, for programs.")]


@app.command()
def up(
    state_dir: StateDir = DEFAULT_STATE,
    port: Annotated[int | None, typer.Option(help="The first of four in a row. Default: 7420, or free ones.")] = None,
    bind: Annotated[str, typer.Option(help="Address to serve on; only loopback without TLS.")] = "127.0.0.1",
) -> None:
    """Start everything on this machine: Postgres, Valkey, the four services, and a demo account."""
    from services.up import up as run  # noqa: PLC0415 - `serve` in the image has no embedded servers

    raise typer.Exit(run(state_dir, port, bind))


@app.command()
def serve() -> None:
    """Serve LICTOR_TARGET, with settings from the environment, until SIGTERM."""
    import uvloop  # noqa: PLC0415

    from services.main import run  # noqa: PLC0415 - keeps the other commands quick

    with _refusing():
        uvloop.run(run())


@app.command()
def migrate() -> None:
    """Bring the database of LICTOR_POSTGRES_ADMIN_DSN to this version's schema."""
    from shared.db.migrate import migrate as run  # noqa: PLC0415
    from shared.db.pool import read_passwords  # noqa: PLC0415

    file = os.environ.get("LICTOR_POSTGRES_PASSWORD_FILE")
    with _refusing():
        applied = asyncio.run(run(_required("LICTOR_POSTGRES_ADMIN_DSN"), read_passwords(Path(file) if file else None)))
    typer.echo(f"applied {', '.join(applied)}" if applied else "up to date")


@keys.command("bootstrap")
def bootstrap(out: Annotated[Path, typer.Option(help="A file that does not exist yet; made with mode 0600.")]) -> None:
    """Make an operator key, which manages accounts, in the database of LICTOR_POSTGRES_ADMIN_DSN."""
    from services.bootstrap import bootstrap_operator_key  # noqa: PLC0415

    with _refusing():
        secret_file = Path(_required("LICTOR_ROOT_SECRET_FILE"))
        made = asyncio.run(bootstrap_operator_key(_required("LICTOR_POSTGRES_ADMIN_DSN"), secret_file, out))
    typer.echo(f"operator key {made} is in {out}; keep it safe, it is nowhere else")


@keys.command("list")
def list_keys() -> None:
    """Show the operator keys of the database of LICTOR_POSTGRES_ADMIN_DSN."""
    from services.bootstrap import list_operator_keys  # noqa: PLC0415

    with _refusing():
        found = asyncio.run(list_operator_keys(_required("LICTOR_POSTGRES_ADMIN_DSN")))
    for key in found:
        ended = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "works"
        typer.echo(f"{key.operator_key_id}  ...{key.hint}  made {key.created_at:%Y-%m-%d %H:%M}  {ended}")


@keys.command("revoke")
def revoke(operator_key_id: Annotated[str, typer.Argument(help="opk_...")]) -> None:
    """End an operator key in the database of LICTOR_POSTGRES_ADMIN_DSN."""
    from services.bootstrap import revoke_operator_key  # noqa: PLC0415

    with _refusing():
        done = asyncio.run(revoke_operator_key(_required("LICTOR_POSTGRES_ADMIN_DSN"), operator_key_id))
    if not done:
        _refuse(ValueError(f"no operator key {operator_key_id} that still works"))
    typer.echo(f"{operator_key_id} is refused from the next call on")


@keys.command("rewrap")
def rewrap() -> None:
    """Seal every key in the database of LICTOR_POSTGRES_DSN under the newest version in LICTOR_KEK_FILE."""
    from services.rewrap import rewrap as run  # noqa: PLC0415

    with _refusing():
        done = asyncio.run(
            run(os.environ | {name: _required(name) for name in ("LICTOR_POSTGRES_DSN", "LICTOR_KEK_FILE")})
        )
    typer.echo(f"{done.rewrapped} keys are sealed anew under version {done.version} of the KEK")
    if done.unopened:
        _refuse(ValueError(f"{done.unopened} do not open with this KEK file, and stay as they are: {done.why}"))


@app.command()
def call(
    method: Annotated[str, typer.Argument(help="ValidateLicense, or license.v1.ValidationService/ValidateLicense.")],
    body: Annotated[str, typer.Argument(help="The request as JSON; - reads standard input.")] = "{}",
    *,
    endpoint: Endpoint = "",
    api_key: ApiKey = None,
    state_dir: StateDir = DEFAULT_STATE,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Call one method with JSON and print the answer."""
    from services.call import CallUsageError, tls_of  # noqa: PLC0415
    from services.call import call as run  # noqa: PLC0415
    from services.up import known_api_key, known_endpoint  # noqa: PLC0415

    try:
        tls = tls_of(ca_file, cert_file, key_file)
    except CallUsageError as error:
        _refuse(error)
    # A key counts alone, so the kept one would hide who the certificate is.
    key = api_key if api_key or cert_file else known_api_key(state_dir)
    raise typer.Exit(run(method, body, endpoint=endpoint or known_endpoint(state_dir), api_key=key, tls=tls))


@app.command()
def fingerprint(
    product: Annotated[str, typer.Option(help="The product that the fingerprint is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show this machine's fingerprint and what it is made of; sends nothing."""
    from services.fingerprint import fingerprint as run  # noqa: PLC0415

    raise typer.Exit(run(product, as_json=as_json))


@app.command()
def demo(
    flow: Annotated[str, typer.Option(help="Which flow; all of them by default.")] = "",
    split: Annotated[bool, typer.Option("--split", help="Four processes, each with its own database role.")] = False,
) -> None:
    """Walk the example flows against a fresh stack, one line per step with what was asserted."""
    from services.demo import demo as run  # noqa: PLC0415

    raise typer.Exit(run(flow, split=split))


@app.command()
def doctor(state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Check this machine and, where LICTOR_POSTGRES_DSN is set, the deployment; name the fix of what is wrong."""
    from services.doctor import doctor as run  # noqa: PLC0415

    raise typer.Exit(run(state_dir, as_json=as_json))


@file.command("verify")
def verify_file(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The license or machine file.")],
    *,
    keys: Annotated[Path, typer.Option(help="The product's key set, as jwks.json answers it.")],
    state: Annotated[Path | None, typer.Option(help="Remembers what was seen; older files are refused then.")] = None,
    fingerprint: Annotated[str, typer.Option(help="Of the machine that the file is bound to.")] = "",
    license_key_file: Annotated[Path | None, typer.Option(help="Holds the license key of an encrypted file.")] = None,
) -> None:
    """Verify a license or machine file without any call, and print what it says as JSON."""
    from services.file_verify import verify as run  # noqa: PLC0415

    raise typer.Exit(run(path, keys, state, fingerprint, license_key_file))


@config.command("check")
def check(as_json: AsJson = False) -> None:
    """Check the settings of a serving process and show them, without their secrets; connects to nothing."""
    from services.config_check import check as run  # noqa: PLC0415

    raise typer.Exit(run(as_json=as_json))


def _required(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set")
    return value


@contextmanager
def _refusing() -> Generator[None]:
    """Ends the command with one line for what can go wrong with a deployment."""
    try:
        yield
    except Exception as error:
        from services.refusals import REFUSALS  # noqa: PLC0415 - a process that only watches has no use for drivers

        if not isinstance(error, REFUSALS):
            raise
        _refuse(error)


def _refuse(error: BaseException) -> NoReturn:
    typer.echo(f"lictor: {error}", err=True)
    raise typer.Exit(1) from error


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    sys.exit(main())
