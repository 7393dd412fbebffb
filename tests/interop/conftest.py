# SPDX-License-Identifier: MIT
"""What the interop tests are given: the helpers and fixtures of tests/integration, a keys folder,
and a model that is small enough to be computed in no time."""

import importlib.util
import sys
from pathlib import Path

INTEGRATION = Path(__file__).resolve().parent.parent / "integration"
sys.path.insert(0, str(INTEGRATION))

# Its conftest under a name of its own: this file is called conftest already.
_spec = importlib.util.spec_from_file_location("integration_conftest", INTEGRATION / "conftest.py")
_integration = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_integration)

mcp_bin = _integration.mcp_bin
mcp_lib = _integration.mcp_lib
smollm2 = _integration.smollm2

from cluster_fixtures import keys, tiny  # noqa: E402,F401  found by the path added above
