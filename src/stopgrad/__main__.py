"""`python -m stopgrad` is the command `stopgrad`."""

import sys

from stopgrad.cli import main

sys.exit(main())
