"""Programs: frozen networks as plain data, which each format writes and each engine runs. Needs numpy alone.

`steps.py` has `Program`, a list of `Step`. `operations.py` lists the operations that a step may be, and checks a
program and how much it asks for; `shapes.py` has the shapes of their values. `bits.py` keeps signs as bits, eight to a
byte. `untrusted.py` reads JSON that anybody may have written, and shows values of it in one line.
"""

from bnnlight.deploy.program.steps import INPUT, Program, Shape, Step

__all__ = ["INPUT", "Program", "Shape", "Step"]
