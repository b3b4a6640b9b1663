"""edgekd's fastest form of a network against what other tools make of the same network: latency and accuracy.

    uv run python benchmarks/int8_forms.py --models resnet18 mobilenet_v2 --seconds 60 --json

Batch 1, 3x224x224, two threads, one machine. Every file runs in the same runtime sessions (edgekd.runtime: threads,
inference precision f32, or bf16 where a name says so), in fresh processes, in short blocks that alternate. A row is one
network on one backend. All of edgekd's candidates and all others (files of `quantize_static` and NNCF, see peers.py,
and the float forms) race first; the fastest on each side then meet anew, since the winner of a race was partly lucky,
and only the second meeting is reported: ``ours_over_best_peer`` and ``ours_over_float`` (below 1: ours is faster) with
99 % intervals over pairs of processes.

Accuracy is that of the compiled models, on samples that nobody calibrated on: the signal-to-noise ratio of the logits
in dB against the float network in PyTorch (``snr_db``), and the share of equal top-1 decisions (``agreement``).
``peer_snr_db`` is the best among the peers' int8 files. Ours is the fastest of edgekd's forms that is as accurate as
that to 0.5 dB (float always is) and as fast as the fastest file of the race; where none is both, the fastest as
accurate, or where no integer one is, the fastest of all, and the row shows it. ``unmatched_peers`` are the files that
none of edgekd's forms (float ones too) equals in both accuracy and the race's time.

Where ours is slower than the fastest of the others, ``profile`` tells where, from the runtime's own profiler:
microseconds of a run and kernels by kind of kernel in either file, what differs most first; medians of profiles that
are taken in turns (profiles.py).

All get the same samples to calibrate on; edgekd tries the calibrations of starts.py, and keeps some of the samples back
to choose by, for both backends one. Networks have random weights, see networks.py: the figures compare files of one
network, they are no accuracies of trained ones. With ``--trained`` they are trained for minutes, see training.py, and
rows tell top-1 accuracies too. What fails stands in its row as ``error``. The rows of tensorrt-rtx tell what its parser
and builder, which need no GPU, say of each form; they have no latencies.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from columns import UNKNOWN
from networks import NETWORKS, make_network
from profiles import told
from rows import measure_backend
from starts import SETTINGS, Options, make_files
from training import TRAINABLE, UNTRAINABLE, trained_network

from edgekd.measure import describe_machine
from edgekd.store import write_text_atomic

BACKENDS = ("onnxruntime", "openvino", "tensorrt-rtx")
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "timm", "torchao", "onnx", "onnxruntime", "openvino", "nncf", "numpy")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenet_v2"], help="names, or all")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--seconds", type=float, default=60.0, help="of runs a row, starts not counted; 0: not timed")
    parser.add_argument("--pairs", type=int, default=8, help="of fresh processes in the second meeting")
    parser.add_argument("--calibration", type=int, default=64, help="samples that all calibrate on")
    parser.add_argument("--held-out", type=int, default=64, help="samples that accuracy is told on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--starts", type=int, default=len(SETTINGS), metavar="N", help="try the first N of edgekd's calibrations"
    )
    parser.add_argument("--trained", action="store_true", help="train the networks first; all means those it can")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="keep trained weights here, and take them again")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, help=f"write rows here as they come (such as {RESULTS.name}/NAME.json), "
                        "and go on from the rows that are there")  # fmt: skip
    arguments = parser.parse_args()
    every = TRAINABLE if arguments.trained else NETWORKS
    names = list(every) if arguments.models == ["all"] else arguments.models
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        parser.error(f"unknown model {', '.join(unknown)}; known are {', '.join(NETWORKS)}, or all")
    if arguments.weights and not arguments.trained:
        parser.error("--weights keeps trained weights; give --trained too")
    for name in names:
        if arguments.trained and name in UNTRAINABLE:
            parser.error(f"{name} cannot be trained here: {UNTRAINABLE[name]}")
    if "openvino" in arguments.backends and not _installed("nncf"):
        parser.error("NNCF is not installed; install the peers with: uv sync --group peers")
    if not 1 <= arguments.starts <= len(SETTINGS):
        parser.error(f"--starts is {arguments.starts}; it must be 1 to {len(SETTINGS)}")
    options = Options(
        arguments.seconds,
        arguments.pairs,
        arguments.calibration,
        arguments.held_out,
        arguments.seed,
        arguments.starts,
        arguments.trained,
    )
    result = run(names, arguments.backends, options, arguments.save, arguments.weights)
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        print("\n".join(line(row) for row in result["rows"]))
    return 0


def run(
    names: list[str], backends: list[str], options: Options, save: Path | None = None, weights: Path | None = None
) -> dict[str, Any]:
    """The whole result; rows of an earlier run with the same settings in ``save`` are kept, but errors are redone.

    ``weights``: the folder that keeps trained ones.
    """
    head = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": {package: metadata.version(package) for package in PACKAGES if _installed(package)},
        "seed": options.seed,
        "weights": options.weights,
        "calibration": options.to_json(),
    }
    rows: list[dict[str, Any]] = []
    if save and save.exists():
        before = json.loads(save.read_text())
        if any(before.get(key) != head[key] for key in ("machine", "versions", "seed", "calibration")):
            raise SystemExit(f"{save} is of another machine, other versions or other settings: give another file")
        rows = [row for row in before["rows"] if "error" not in row]
    for name in names:
        left = [b for b in backends if not any(row["model"] == name and row["backend"] == b for row in rows)]
        # Libraries print on stdout; what is asked for is the only thing there.
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            for row in _rows(name, left, Path(folder), options, weights):
                print(line(row), flush=True)
                rows.append(row | {"weights": options.weights})
                if save:
                    save.parent.mkdir(parents=True, exist_ok=True)
                    write_text_atomic(save, json.dumps(head | {"rows": rows}, indent=1) + "\n")
    return head | {"rows": rows}


def _rows(name: str, backends: list[str], folder: Path, options: Options, weights: Path | None) -> Any:
    """A row for each backend of one network; of what fails the words."""
    if not backends:
        return
    try:
        seed = options.seed
        network = trained_network(name, seed, weights) if options.trained else make_network(name, seed)
        files = make_files(name, network, folder, options)
    except Exception as error:
        traceback.print_exc()
        yield from ({"model": name, "backend": backend, **UNKNOWN, "error": words(error)} for backend in backends)
        return
    for backend in backends:
        try:
            yield measure_backend(files, backend, options)
        except Exception as error:
            traceback.print_exc()
            yield {"model": name, "backend": backend, **UNKNOWN, "error": words(error)}


def words(error: Exception) -> str:
    """An error in a row: its kind and the beginning of what it says."""
    return f"{type(error).__name__}: {error}"[:600]


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    head = f"{row['model']:23} {row['backend']:12} "
    if "error" in row:
        return head + "error: " + row["error"].splitlines()[0]
    if "builds" in row:
        return head + ", ".join(f"{form}: {said.splitlines()[0]}" for form, said in row["builds"].items())
    text = f"{row['form']:20} snr {_number(row['snr_db'], 1)} dB, peers {_number(row['peer_snr_db'], 1)} dB"
    # Files from before rows had it are gone on from; so of the profile.
    if row.get("float_top1") is not None:
        text += f", top-1 {100 * row['top1']:.1f} % (float {100 * row['float_top1']:.1f} %)"
    if row["integer_coverage"] is not None:
        text += f", integer {row['integer']}/{row['compute']}"
    if row["ours_over_best_peer"] is not None:
        low, high = row["interval"]
        text += f", {row['ours_over_best_peer']:.3f} of {row['best_peer']} ({low:.3f} to {high:.3f})"
        text += f", {row['ours_over_float']:.3f} of float"
    if row.get("profile"):
        text += f", profile: {told(row['profile'])}"
    return head + text + ("" if row["proof"] == "ok" else f", proof: {row['proof'].splitlines()[0]}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
