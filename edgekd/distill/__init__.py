"""Training: teachers, distillation, fine-tuning and quantization-aware training, all through one loop."""

from edgekd.distill.predict import predict
from edgekd.distill.train import distill, finetune, quantization_aware, train_teacher

__all__ = ["distill", "finetune", "predict", "quantization_aware", "train_teacher"]
