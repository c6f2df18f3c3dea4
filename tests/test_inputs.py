"""docs/inputs.md says what the marked tests claim."""

import os
import subprocess
import sys
from pathlib import Path

from tests.inputs import PAGE


def test_the_page_of_inputs_is_what_the_tests_say() -> None:
    command = [sys.executable, "-m", "tests.inputs", "--print"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[1], env=alone
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == PAGE.read_text(encoding="utf-8"), "write it: python -m tests.inputs"
