"""Quantize once, in the strictest form: prepared by torchao's pt2e, calibrated, trained when asked, then the master."""

import logging

# torchao makes torch warn about its own deprecations when it is imported, and torch's exporters tell every detail on
# the root logger, also of what is raised: a build's log is for people.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
logging.getLogger("torch.onnx").setLevel(logging.ERROR)
for name in ("torch.export", "torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor"):
    logging.getLogger(name).setLevel(logging.CRITICAL)

from edgekd.quantize.ladder import Outcome, quantize  # noqa: E402
from edgekd.quantize.master import export_float, rehearse_master, write_float_weights, write_master  # noqa: E402
from edgekd.quantize.post_training import calibrated  # noqa: E402
from edgekd.quantize.prepared import Prepared, prepare  # noqa: E402
from edgekd.quantize.sensitivity import measure_sensitivity  # noqa: E402

__all__ = [
    "Outcome",
    "Prepared",
    "calibrated",
    "export_float",
    "measure_sensitivity",
    "prepare",
    "quantize",
    "rehearse_master",
    "write_float_weights",
    "write_master",
]
