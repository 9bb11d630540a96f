"""What every test shares: one thread, since networks this small only wait for a second one."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def postgresql():
    """The folder of the socket of a PostgreSQL server of our own."""
    from postgresql import running_server

    with running_server() as socket:
        yield socket


@pytest.fixture(scope="session")
def shop_run(tmp_path_factory):
    """The exported run of the pottery that all tests of the server share; nobody changes it."""
    from tests.served import exported

    return exported(tmp_path_factory.mktemp("served") / "run")


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory):
    """A run with an export, since writing one takes as long as many tests; nobody changes it."""
    from tests.test_export import exported

    return exported(tmp_path_factory.mktemp("exported"))
