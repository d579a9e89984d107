"""Fixtures for all tests: real servers, real mounts, and a check that nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.memory import Tidier
from tests.support.mounts import Home, fuse_mounts
from tests.support.needs import need_programs
from tests.support.registry import DockerRegistry, RegistryOptions
from tests.support.tls import CertificateAuthority
from tests.support.tokens import Algorithm, TokenServer

for _name in (
    "contract",
    "contract_auth",
    "contract_capabilities",
    "contract_provider",
    "contract_referrers",
    "contract_tools",
):
    pytest.register_assert_rewrite(f"regfs.testing.{_name}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        default=os.environ.get("REGFS_NO_SKIP") == "1",
        help="a test that would be skipped fails (also: REGFS_NO_SKIP=1); for machines that must have everything",
    )


_tidier = Tidier()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    yield
    _tidier.tidy()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and nothing may be skipped here: {_reason(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and collector.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and nothing may be skipped here: {_reason(report.longrepr)}"
    return report


def _reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After all tests: no mount below the tests' folder, and no process of ours, daemons included."""
    processes.adopt_orphans()
    before = set(processes.children())
    yield
    mounts = [mount for mount in fuse_mounts() if mount.is_relative_to(tmp_path_factory.getbasetemp())]
    left = {pid: line for pid, line in processes.children().items() if pid not in before}
    for pid in left:
        processes.kill(pid)
    assert mounts == [], "mounts were left behind"
    assert left == {}, "processes were left behind"


@pytest.fixture
def docker_registry(tmp_path: Path) -> Iterator[Callable[..., DockerRegistry]]:
    """Start Docker's registry: ``docker_registry(htpasswd={…}, tls=…, delete=False …)``, as often as is wanted."""
    need_programs("docker-registry", "skopeo")
    with ExitStack() as stack:

        def start(**options: object) -> DockerRegistry:
            folder = tmp_path / f"registry-{len(started)}"
            registry = DockerRegistry(folder, RegistryOptions(**options))  # type: ignore[arg-type]
            started.append(registry)
            stack.callback(registry.remove)
            return registry.start()

        started: list[DockerRegistry] = []
        yield start


@pytest.fixture
def token_server(tmp_path: Path) -> Iterator[Callable[..., TokenServer]]:
    """Start a token server: ``token_server({"user": "password"}, "RS256")``."""
    with ExitStack() as stack:

        def start(users: Mapping[str, str] | None = None, algorithm: Algorithm = "ES256") -> TokenServer:
            folder = tmp_path / f"tokens-{len(started)}"
            server = TokenServer(folder, {"tester": "a-password"} if users is None else users, algorithm)
            started.append(server)
            return stack.enter_context(server)

        started: list[TokenServer] = []
        yield start


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    """A certificate authority of the test's own."""
    return CertificateAuthority(tmp_path / "ca")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home folder of the test's own, with all that regfs and containers' tools keep in one."""
    return Home(tmp_path / "home")
