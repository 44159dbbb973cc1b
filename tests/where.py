"""Where the packages under test are: the processes that tests start import the same ones, compiled or not."""

import os
from pathlib import Path

import colo_proto
import colo_runtime

PYTHONPATH = os.pathsep.join(dict.fromkeys(str(Path(p.__path__[0]).parent) for p in (colo_runtime, colo_proto)))
