"""The reference pages say what the docstrings say."""

from __future__ import annotations

import subprocess
import sys

from support.checkout import CHECKOUT


def test_reference_is_up_to_date() -> None:
    """The generator finds nothing to change in docs/reference."""
    generator = CHECKOUT / "docs" / "generate_reference.py"
    done = subprocess.run(
        [sys.executable, str(generator), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
