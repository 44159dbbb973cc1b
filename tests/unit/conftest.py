import shutil
import tempfile
from pathlib import Path

import pytest

from runtime_helpers import Bench


@pytest.fixture
def bench():
    # Not tmp_path: a Unix socket's path has at most 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="colo-"))
    one = Bench(directory)
    yield one
    one.close()
    shutil.rmtree(directory)
