import shutil
import tempfile
from pathlib import Path

import pytest

from captures import sources
from captures.replaying import Conversation, load


@pytest.fixture(scope="session")
def workplace():
    directory = Path(tempfile.mkdtemp(prefix="colo-captures-"))
    yield directory
    shutil.rmtree(directory)


def conversations(paths):
    """`(name, conversation)` of each capture that has frames."""
    loaded = ((path.name, load(path)) for path in paths)
    return [(name, Conversation(frames)) for name, frames in loaded if frames]


@pytest.fixture(scope="session")
def public(workplace):
    directory = workplace / "public"
    directory.mkdir()
    try:
        fetched = sources.public(directory)
    except sources.UnavailableError as error:
        fetched = []
        if not sources.folder():
            pytest.skip(str(error))
    return conversations([*fetched, *sources.folder()])


@pytest.fixture(scope="session")
def own(workplace):
    directory = workplace / "own"
    directory.mkdir()
    try:
        return conversations(sources.own(directory))
    except sources.UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["public", "own"])
def talks(request):
    """Captures that others have made, then some that are made here."""
    return request.getfixturevalue(request.param)
