"""The device's command line: ``python BUNDLE/runtime/python verify|bench|run FILE.npy|finalize [--json]``.

Exit codes: 0 done, 2 the bundle (or what was given) does not hold, 5 the runtime, its GPU or a CPU with VNNI is
not here, 130 interrupted, 1 anything else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .bench import bench
from .bench_text import tell_bench
from .bundle_files import BundleError
from .finalize import finalize
from .manifest import read_manifest
from .measurements import append_entry, new_entry
from .model import Model, NotFinalized
from .preprocess import PreprocessError
from .process import REFUSED, WorkerFailed
from .scenario import SCENARIOS, Settings, parse_cores
from .selection import NeedsVnni
from .sessions import RuntimeMissing, SessionError
from .verify import exit_code, outcome, tell, verify

DONE, INTERNAL, BAD_BUNDLE, MISSING, INTERRUPTED = 0, 1, 2, 5, 130


def main(root: Path, arguments: Sequence[str] | None = None) -> int:
    """Run one command on the bundle at ``root``; the exit code. Errors are one message on stderr."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.do(root, options)
        sys.stdout.flush()
        return code
    except (RuntimeMissing, NotFinalized, NeedsVnni) as error:
        return _tell(error, MISSING)
    except (BundleError, PreprocessError, SessionError) as error:
        return _tell(error, BAD_BUNDLE)
    except BrokenPipeError:
        # The reader of our output has gone (`… | head`); the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERNAL
    except OSError as error:
        return _tell(f"{error.filename or root}: {error.strerror or error}", MISSING)
    except KeyboardInterrupt:
        return _tell("interrupted", INTERRUPTED)
    except WorkerFailed as error:
        return _tell(error, BAD_BUNDLE if error.kind in REFUSED else INTERNAL)


def _verify(root: Path, options: argparse.Namespace) -> int:
    checks = verify(root)
    if options.json:
        _print({"bundle": str(root), "ok": outcome(checks), "checks": [check.to_json() for check in checks]})
    else:
        print("\n".join(tell(checks)))
    return exit_code(checks)


def _bench(root: Path, options: argparse.Namespace) -> int:
    settings = Settings(
        scenario=options.scenario,
        seconds=options.seconds,
        batch_sizes=tuple(options.batch_size),
        streams=options.streams,
        threads=options.threads,
        cores=options.cores,
    )
    if options.record and settings.scenario != "single-stream":
        raise SessionError("--record keeps the figures of the scenario single-stream only")
    result = bench(root, settings)
    if options.record:
        append_entry(root, {**new_entry(read_manifest(root), "bench"), **result})
    if options.json:
        _print(result)
    else:
        print("\n".join(tell_bench(result)))
    return DONE


def _run(root: Path, options: argparse.Namespace) -> int:
    samples = [(path, _load(path)) for path in options.files]
    model = Model.load(root)
    rows = [{"file": str(path), **model.predict([raw])[0].to_json()} for path, raw in samples]
    if options.json:
        _print(rows)
    else:
        for row in rows:
            print(f"{row['file']}: {row['label']} ({row['probability']:.1%})")
    return DONE


def _finalize(root: Path, options: argparse.Namespace) -> int:
    entry = finalize(
        root,
        pairs=options.pairs,
        seconds=options.seconds,
        bench_seconds=options.bench_seconds,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if options.json:
        _print(entry)
        return DONE
    print(f"{entry['model']['candidate']} is the choice for this device: {entry['choice']['why']}")
    print("\n".join(tell_bench(entry)))
    return DONE


def _load(path: Path) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror or error}", str(path)) from error
    except (ValueError, EOFError) as error:
        # numpy's own words advise to load it unsafely.
        raise BundleError("is not an array of numbers in numpy's .npy form", str(path)) from error
    if not isinstance(found, np.ndarray):
        raise BundleError("is an archive; give one .npy file a sample", str(path))
    return found


def _print(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False))


def _tell(message: object, code: int) -> int:
    print(f"edgekd: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python BUNDLE/runtime/python", description="Use this bundle on this device.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, do: Any, about: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=about, description=about)
        found.add_argument("--json", action="store_true", help="one JSON document on stdout, all else on stderr")
        found.set_defaults(do=do)
        return found

    add("verify", _verify, "Check every hash and the golden outputs.")
    timing = add("bench", _bench, "Measure latency, throughput and memory on this machine.")
    timing.add_argument("--scenario", choices=SCENARIOS, default="single-stream", help="default: single-stream")
    timing.add_argument("--seconds", type=_number(0.1), default=5.0, help="how long to measure (default 5)")
    timing.add_argument(
        "--batch-size", type=_whole(1, 4096), action="append", default=[], metavar="N", help="offline; repeat it"
    )
    timing.add_argument("--streams", type=_whole(1, 4096), metavar="N", help="multi-stream: samples of a query (8)")
    timing.add_argument("--threads", type=_whole(1, 1024), metavar="N", help="default: the target's")
    timing.add_argument("--cores", type=_cores, metavar="0,1", help="run on these cores only")
    timing.add_argument("--record", action="store_true", help="append the figures to measurements.json")
    running = add("run", _run, "Classify raw samples, one .npy file each.")
    running.add_argument("files", metavar="FILE.npy", nargs="+", type=Path)
    last = add("finalize", _finalize, "Build engines where needed, measure, and choose the candidate for this device.")
    last.add_argument("--pairs", type=_whole(2), default=8, help="rounds of fresh processes (default 8)")
    last.add_argument("--seconds", type=_number(0.0), default=0.5, help="of each candidate in a round (default 0.5)")
    last.add_argument("--bench-seconds", type=_number(0.1), default=5.0, help="of the chosen one alone (default 5)")
    return parser


def _number(least: float) -> Any:
    def number(text: str) -> float:
        value = float(text)
        if not least <= value < 1e5:
            raise ValueError
        return value

    return number


def _whole(least: int, most: int = 999) -> Any:
    def integer(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError
        return value

    return integer


def _cores(text: str) -> tuple[int, ...]:
    try:
        return parse_cores(text)
    except SessionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
