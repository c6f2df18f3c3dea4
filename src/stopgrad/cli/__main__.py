"""`python -m stopgrad.cli` is the command `stopgrad`."""

import sys

from stopgrad.cli.program import main

sys.exit(main())
