"""What every test may ask for."""

import pytest
from support.authority import Authority


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The trust domain example.org, with real keys; tests change nothing of it."""
    return Authority()


@pytest.fixture(scope="session")
def other_authority() -> Authority:
    """Another trust domain, of somebody else."""
    return Authority("other.example")
