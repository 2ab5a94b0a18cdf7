"""Where records of tuning are kept unless somebody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

#: The variable that moves the default folder, or says ``off``.
VARIABLE = "FEWBITS_TUNING"


def default_folder() -> Path | None:
    """``$FEWBITS_TUNING``, or the user's data folder as the system has it; None where it is off."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return None if chosen.lower() in ("off", "0", "no") else Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("fewbits", appauthor=False)) / "tuning"
