# A digits build that is quick and still real: every stage runs, on all the data, for fewer epochs.
FAST = (
    "teacher.epochs=4",
    "distill.epochs=4",
    "finetune.epochs=1",
    "quantize.epochs=1",
    "measure.pairs=4",
    "measure.seconds=0.1",
    "budget.max_accuracy_drop=20",
)
TARGETS = ("onnxruntime-cpu", "openvino-cpu", "jetson")
