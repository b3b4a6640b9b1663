import sys
from pathlib import Path

# The benchmarks are scripts: what they import lies beside them.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
