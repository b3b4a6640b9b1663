import sys
from pathlib import Path

# lowered_nets, which the tests of lower/ share.
sys.path.insert(0, str(Path(__file__).parents[1]))
