"""python -m bnnlight"""

import os
import sys

# `-m` looks in the current folder first, where a user's random.py would take the place of Python's; as the installed
# program it is looked at last
if sys.path[0] == os.getcwd():
    sys.path.append(sys.path.pop(0))

from bnnlight.cli import main

sys.exit(main())
