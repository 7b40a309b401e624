"""deploy/ says what the services know, gives nobody more than they need, and holds no secret."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pytest

from services.license.settings import Settings as LicenseSettings
from services.main import read_settings, read_target
from shared.crypto import keyring
from shared.db.pool import read_passwords
from shared.db.roles import LOGIN_ROLES
from shared.rpc.addresses import split_address
from shared.settings import OTHER_VARIABLES, PREFIX, ProcessSettings, Target, Transport
from tests.helpers.deploy import DEPLOY, HOME, compose, dockerfile, secrets_of, sent, sources, stage
from tests.helpers.embedded import TREE

SERVICES: Final[dict[str, dict[str, Any]]] = compose()["services"]
TARGETS: Final = [target.value for target in Target if target is not Target.ALL]
OURS: Final = [*TARGETS, "migrate"]
EACH_TARGET = pytest.mark.parametrize("target", TARGETS)
EACH_SERVICE = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


@pytest.fixture(scope="module", name="secrets")
def _secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What make_secrets.sh makes, without what is deployed from this tree."""
    folder = tmp_path_factory.mktemp("deploy")
    script = folder / "make_secrets.sh"
    script.write_text((DEPLOY / "make_secrets.sh").read_text())
    subprocess.run(["/bin/sh", str(script)], check=True, capture_output=True)
    return folder / "secrets"


def settings_of(target: str, monkeypatch: pytest.MonkeyPatch) -> ProcessSettings:
    """What a target's process reads from the image's environment and the compose file's."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    for name, value in (stage("").environment() | SERVICES[target]["environment"]).items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    return read_settings(read_target())


@EACH_TARGET
def test_every_setting_is_known_and_reads(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(target, monkeypatch)
    assert read_target() == target
    assert settings.transport is Transport.ENVOY
    addresses = (settings.api_addr, settings.ops_addr, settings.ops_grpc_addr, settings.json_addr or "")
    ports = [split_address(address)[1] for address in addresses]
    assert sorted(ports) == sorted({int(port) for port in stage("").all("EXPOSE")[0].split()})
    given = {f"/run/secrets/{name}" for name in secrets_of(SERVICES[target])}
    named = {str(settings.root_secret_file), str(settings.postgres_password_file)}
    if isinstance(settings, LicenseSettings):
        named.add(str(settings.kek_file))
    assert named == given


def test_the_kek_is_given_to_the_license_target_alone() -> None:
    assert {name for name, service in SERVICES.items() if "kek" in secrets_of(service).values()} == {"license"}
    assert {name for name, service in SERVICES.items() if "LICTOR_KEK_FILE" in service.get("environment", {})} == {
        "license"
    }


def test_migrate_sets_only_what_is_known_and_names_files_that_it_is_given() -> None:
    environment: dict[str, str] = SERVICES["migrate"]["environment"]
    known = OTHER_VARIABLES | {PREFIX + name.upper() for name in ProcessSettings.model_fields}
    assert environment.keys() <= known
    for value in environment.values():
        _, named, name = value.partition("/run/secrets/")
        assert named
        assert name in secrets_of(SERVICES["migrate"])


@EACH_TARGET
def test_a_target_knows_the_passwords_of_its_own_roles_alone(target: str, secrets: Path) -> None:
    own = read_passwords(secrets / secrets_of(SERVICES[target])["roles"])
    assert set(own) == {role.value for role in LOGIN_ROLES if role.value.startswith(f"lictor_{target}")} | {
        "lictor_facts"
    }
    assert own.items() <= read_passwords(secrets / "roles").items()


def test_secrets_are_made_once_for_their_owner_and_no_two_are_the_same(secrets: Path) -> None:
    assert {path.name for path in secrets.iterdir()} == compose()["secrets"].keys()
    assert {path.stat().st_mode & 0o777 for path in (*secrets.iterdir(), secrets.parent / ".env")} == {0o600}
    passwords = read_passwords(secrets / "roles")
    assert set(passwords) == {role.value for role in LOGIN_ROLES}
    admin = (secrets / "postgres-password").read_text().strip()
    keys = [(secrets / name).read_text().split()[1] for name in ("root-secret", "kek")]
    assert len({*passwords.values(), admin, *keys}) == len(passwords) + 3
    assert keyring.load(secrets / "kek").live_versions == (1,)
    owner = secrets.stat()
    assert (secrets.parent / ".env").read_text() == f"CONTAINER_USER={owner.st_uid}:{owner.st_gid}\n"
    before = {path: path.read_text() for path in secrets.iterdir()}
    again = subprocess.run(["/bin/sh", str(secrets.parent / "make_secrets.sh")], capture_output=True, check=False)
    assert again.returncode == 1
    assert {path: path.read_text() for path in secrets.iterdir()} == before


def test_secrets_are_files_that_git_and_the_build_leave_out() -> None:
    for name, secret in compose()["secrets"].items():
        assert secret == {"file": f"secrets/{name}"}
    assert {"deploy/secrets/", "deploy/.secrets.*/", "deploy/.env"} <= set((TREE / ".gitignore").read_text().split())
    for path in ("deploy/secrets/root-secret", "deploy/.secrets.abc/roles", "deploy/.env"):
        assert not sent(PurePosixPath(path)), path


@EACH_SERVICE
def test_every_service_is_locked_in(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert not any(name.endswith(("PASSWORD", "SECRET", "KEY")) for name in service.get("environment", ()))
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), port


def test_every_process_has_a_user_a_folder_and_time_to_leave() -> None:
    for name in OURS:
        assert (SERVICES[name]["user"], SERVICES[name]["tmpfs"]) == ("${CONTAINER_USER:-10001:10001}", ["/tmp"])
        assert SERVICES[name]["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}
    defaults = ProcessSettings.model_fields
    leave_s = defaults["lame_duck_s"].default + 2 * defaults["drain_s"].default + 5
    for name in TARGETS:
        assert SERVICES[name]["stop_grace_period"] == f"{leave_s:.0f}s"
        assert SERVICES[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_no_two_services_are_published_on_one_port_and_the_record_on_none() -> None:
    published = [port.rsplit(":", 1)[0] for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(set(published)) == len(published) == 2 * len(TARGETS)
    for name in ("postgres", "valkey", "migrate"):
        assert "ports" not in SERVICES[name]
        assert SERVICES[name]["networks"] == ["record"]
    assert compose()["networks"]["record"] == {"internal": True}


def test_images_of_others_are_pinned_to_a_version_and_are_asked_for_their_health() -> None:
    others = {name: service for name, service in SERVICES.items() if name not in OURS}
    for service in others.values():
        _, _, tag = service["image"].partition(":")
        assert tag[:1].isdigit(), service["image"]
        assert service["healthcheck"]["test"][0] == "CMD"
    version = int(others["postgres"]["image"].partition(":")[2].partition("-")[0])
    assert version >= 15
    assert others["postgres"]["volumes"] == ["record:/var/lib/postgresql"]  # where the images keep data from 18 on


def test_the_image_is_one_that_nobody_needs_to_trust_much() -> None:
    base, _, final = dockerfile()
    assert base.base == "python:3.13-slim-trixie"
    assert [one.base for one in dockerfile()[1:]] == ["base", "base"]
    assert final.all("USER") == ["10001:10001"]
    assert final.all("STOPSIGNAL") == ["SIGTERM"]
    assert [json.loads(final.all(name)[0]) for name in ("ENTRYPOINT", "CMD")] == [["lictor"], ["serve"]]
    assert f"{HOME}/healthcheck.py" in final.all("HEALTHCHECK")[0]
    assert [text for text in final.all("COPY") if not text.startswith("--from=build ")] == []


def test_the_build_is_sent_what_it_copies_and_nothing_else() -> None:
    copied = [path for text in stage("build").all("COPY") for path in sources(text)[0]]
    names = {str(path.relative_to(TREE)) for path in copied}
    assert {
        "LICENSE",
        "deploy/install.sh",
        "requirements/run.txt",
        "services/cli.py",
        "clients/python/pyproject.toml",
    } <= names
    assert "shared/db/migrations/0001_record.sql" in names
    for kept_out in (".git/HEAD", ".lictor/root-secret", ".venv/pyvenv.cfg", "tests/conftest.py", "deploy/compose.yaml",
                     "shared/__pycache__/ids.pyc", "clients/python/lictor.egg-info/PKG-INFO", "README.md"):  # fmt: skip
        assert not sent(PurePosixPath(kept_out)), kept_out
