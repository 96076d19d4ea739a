"""Run a script with other values of some constants: patched.py JSON SCRIPT FLAG...

The JSON object maps places, for example "studies.harness.store.launches.STALE", to values. If the
place holds a function, the function then returns the value.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path

patches, script = json.loads(sys.argv[1]), sys.argv[2]
sys.argv = sys.argv[2:]
sys.path[0] = str(Path(script).parent)  # as if Python had started the script
for place, value in patches.items():
    module_name, _, name = place.rpartition(".")
    module = importlib.import_module(module_name)
    old = getattr(module, name)
    setattr(module, name, (lambda value=value: value) if callable(old) else value)
runpy.run_path(script, run_name="__main__")
