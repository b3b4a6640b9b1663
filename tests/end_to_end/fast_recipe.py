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
# Threads of training: two test processes run at once, and a second thread of each would only wait for the other's.
JOBS = 1
# So it is with what is measured, where threads wait for each other at every layer: these get one (see `targets`).
CPUS = ("onnxruntime-cpu", "openvino-cpu")
