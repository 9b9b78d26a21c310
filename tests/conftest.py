"""`--must-run`: a tier of tests in which nothing ran, or in which only skips did, has failed."""

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # one in use may pause anywhere
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--must-run", action="store_true", help="fail where no test passed")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--must-run") or exitstatus != pytest.ExitCode.OK or reporter is None:
        return
    if not reporter.stats.get("passed"):
        reporter.write_line("--must-run: no test passed, so this tier has failed.", red=True)
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
