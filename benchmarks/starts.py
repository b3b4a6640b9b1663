"""What everybody's files of one network start from: samples, the float file, and edgekd's master.

edgekd calibrates in a few ways that its recipes offer and keeps the one whose compiled int8 files are nearest to float,
on the backend where it is worst: one master for all of them. Everybody gets the same samples; edgekd keeps a third of
them back for that choice, since a bias that was corrected on samples is always right on these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import samples
from training import images

from edgekd.backends import get_backend
from edgekd.errors import EdgekdError
from edgekd.pipeline.candidates import lowered, session_run
from edgekd.quantize import calibrated, export_float, write_master
from edgekd.quantize.post_training import Techniques
from edgekd.target import load_calibration, load_target

TARGETS = {"onnxruntime": "onnxruntime-cpu", "openvino": "openvino-cpu"}
# Calibration policies, each with what else is done; the first ones are tried where a run is to be short.
SETTINGS = tuple(
    (policy, techniques)
    for techniques in (
        Techniques(),
        Techniques(bias_correction=True),
        Techniques(equalization=True, bias_correction=True),
    )
    for policy in ("min-max", "moving-average", "mse")
)
# Of the samples, the share that the choice among them is made on.
CHOOSING = 1 / 3
BATCH = 16
# Batches over which extremes are averaged.
AVERAGED = 8


@dataclass(frozen=True)
class Options:
    """What a run measures with; ``seconds`` of runs a row (0: not timed), ``pairs`` in the second meeting.

    ``starts``: how many of `SETTINGS` are tried. ``trained``: samples are Fashion-MNIST's, as the networks want them.
    """

    seconds: float = 60.0
    pairs: int = 8
    calibration: int = 64
    held_out: int = 64
    seed: int = 0
    starts: int = len(SETTINGS)
    trained: bool = False

    @property
    def weights(self) -> str:
        """Of the networks: "trained" or "random"."""
        return "trained" if self.trained else "random"

    def to_json(self) -> dict[str, Any]:
        """What the samples are, and how long is measured; each row tells its own starts."""
        told = {key: value for key, value in asdict(self).items() if key not in ("starts", "trained")}
        kind = "Fashion-MNIST, benchmarks/training.py" if self.trained else "dead leaves, benchmarks/networks.py"
        return told | {"images": kind, "threads": 2, "batch": 1}


@dataclass(frozen=True)
class NetworkFiles:
    """One network: ``folder`` has float.onnx, plain.onnx (what others start from: with its branches) and master.onnx.

    Samples are (N, 3, 224, 224), ``reference`` is (N, classes).
    ``calibrated`` tells how the master was, ``tried`` each way's signal-to-noise ratio in dB on the samples kept back.
    ``labels`` (N,) are those of the held-out samples; dead leaves have none.
    """

    name: str
    folder: Path
    calibration: np.ndarray
    held_out: np.ndarray
    reference: np.ndarray
    calibrated: str
    tried: dict[str, float]
    master_error: str
    labels: np.ndarray | None = None

    def top1(self, outputs: np.ndarray) -> float | None:
        """Share of the held-out samples whose label these outputs tell; None where there are no labels."""
        return None if self.labels is None else float((outputs.argmax(1) == self.labels).mean())

    def feeds(self) -> dict[str, np.ndarray]:
        """What files are timed and profiled on: one sample."""
        return {"input": self.held_out[:1]}


def make_files(name: str, network: torch.nn.Module, folder: Path, options: Options, *, size: int = 224) -> NetworkFiles:
    """A float file, and edgekd's master by the calibration that suits the calibration samples best."""
    calibration, held_out, labels = _samples(options, size)
    export_float(network, calibration[:2], folder / "float.onnx")
    export_float(network, calibration[:2], folder / "plain.onnx", merge=False)
    tried: dict[str, float] = {}
    error = ""
    try:
        kept = max(int(CHOOSING * len(calibration)), 1)
        seen, choosing = calibration[:-kept], calibration[-kept:]
        wanted = _torch_outputs(network, choosing)
        for policy, techniques in SETTINGS[: options.starts]:
            setting = _setting(policy, techniques)
            place = folder / "starts" / setting
            place.mkdir(parents=True)
            _write_master(network, seen, policy, techniques, place)
            tried[setting] = min(
                _compiled_snr_db(place, target, choosing.numpy(), wanted) for target in TARGETS.values()
            )
        best = max(tried, key=lambda setting: tried[setting])
        for file in [one for one in (folder / "starts" / best).iterdir() if one.is_file()]:
            file.rename(folder / file.name)
    except EdgekdError as failure:  # the others' figures stand all the same
        best, error = "", f"{type(failure).__name__}: {failure}"
    outputs = _torch_outputs(network, held_out)
    return NetworkFiles(name, folder, calibration.numpy(), held_out.numpy(), outputs, best, tried, error, labels)


def _samples(options: Options, size: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray | None]:
    """To calibrate on, held out, and labels of the latter if there are any."""
    seeds = 2 * options.seed + 1, 2 * options.seed + 2
    if not options.trained:
        return samples(options.calibration, seeds[0], size), samples(options.held_out, seeds[1], size), None
    held_out, labels = images("test", options.held_out, seeds[1], size)
    return images("train", options.calibration, seeds[0], size)[0], held_out, labels.numpy()


def snr_db(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Power of the reference over that of the difference, in dB; capped at 200, where they are equal."""
    noise = np.square(outputs.astype(np.float64) - reference).sum()
    power = np.square(reference.astype(np.float64)).sum()
    return float(10 * np.log10(power / max(noise, power * 1e-20)))


def _setting(policy: str, techniques: Techniques) -> str:
    """As "min-max, bias correction"."""
    return ", ".join([policy, *(name.replace("_", " ") for name, used in asdict(techniques).items() if used)])


def _write_master(
    network: torch.nn.Module, calibration: torch.Tensor, policy_name: str, techniques: Techniques, folder: Path
) -> None:
    batch_size = max(len(calibration) // AVERAGED, 1)
    policy = load_calibration(policy_name).model_copy(update={"samples": len(calibration), "batch_size": batch_size})
    prepared = calibrated(network, calibration.split(BATCH), policy, **asdict(techniques))
    write_master(prepared, calibration[:2], folder)


def _compiled_snr_db(folder: Path, target_name: str, inputs: np.ndarray, wanted: np.ndarray) -> float:
    """Of the rules' own choice for a target, compiled."""
    target = load_target(target_name)
    backend = get_backend(target.backend)
    form = backend.candidates(target)[0]
    place = folder / target_name
    place.mkdir()
    (place / "model.onnx").write_bytes(lowered(folder, form, vnni=target.has_vnni()).SerializeToString())
    run = session_run(backend.load(backend.compile(place / "model.onnx", target, place, form=form), target))
    return snr_db(np.concatenate([run(sample[None]) for sample in inputs]), wanted)


def _torch_outputs(module: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([module(batch) for batch in inputs.split(BATCH)]).numpy()
