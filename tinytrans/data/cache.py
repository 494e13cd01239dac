"""The cache: where this user's machine keeps what was built once."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """The folder for built files: $TINYTRANS_CACHE, else `tinytrans` in the system's own place for caches.

    That place is $XDG_CACHE_HOME, else ~/.cache, ~/Library/Caches (macOS) or %LOCALAPPDATA% (Windows).
    """
    if own := os.environ.get("TINYTRANS_CACHE"):
        return Path(own)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "tinytrans"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tinytrans"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "tinytrans" / "Cache"
    return Path.home() / ".cache" / "tinytrans"
