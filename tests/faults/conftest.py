import pytest
from faults.harness import TALLY, Ground


@pytest.fixture(scope="session")
def ground(tmp_path_factory) -> Ground:
    return Ground(tmp_path_factory.mktemp("faults"))


def pytest_terminal_summary(terminalreporter) -> None:
    """How many faults were injected, and what came of them."""
    if not TALLY:
        return
    terminalreporter.section("faults")
    kinds = sorted({kind for kind, _ in TALLY})
    for kind in kinds:
        ends = ", ".join(
            f"{count} {how}" for (of, how), count in sorted(TALLY.items()) if of == kind
        )
        terminalreporter.write_line(f"{kind:<40} {ends}")
    total = sum(TALLY.values())
    terminalreporter.write_line(f"{total} faults injected, {total} survived.")
