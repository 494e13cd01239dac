"""Whether submitted code can be isolated on this machine, for the tests that need it."""

from __future__ import annotations

import pytest

from graders.levels import missing

NO_BOX = missing()
needs_box = pytest.mark.skipif(NO_BOX is not None, reason=f"no isolation here: {NO_BOX}")
