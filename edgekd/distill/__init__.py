"""Training of float and fake-quantized networks: losses, schedules, a teacher's cached answers, one loop."""

from edgekd.distill.loop import FitResult, fit
from edgekd.distill.losses import get_loss, list_losses
from edgekd.distill.optimizer import OptimizerConfig
from edgekd.distill.predict import predict
from edgekd.distill.train import distill, finetune, quantization_aware, train_teacher

__all__ = [
    "FitResult",
    "OptimizerConfig",
    "distill",
    "finetune",
    "fit",
    "get_loss",
    "list_losses",
    "predict",
    "quantization_aware",
    "train_teacher",
]
