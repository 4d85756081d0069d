"""python -m bnnlight"""

import sys

from bnnlight.cli import main

sys.exit(main())
