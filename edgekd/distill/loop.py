"""The one training loop: teachers, distillation, fine-tuning and quantization-aware training all go through `fit`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from edgekd.distill.checkpoint import NAME, TrainingState, load_state, save_state
from edgekd.distill.feed import Feed, make_feed
from edgekd.distill.optimizer import OptimizerConfig, make_optimizer, set_rate
from edgekd.distill.placement import Precision, make_fabric, memory_format, switch_mode
from edgekd.distill.seeding import own_randomness, seed_globals
from edgekd.distill.steps import Steps
from edgekd.distill.teacher_cache import TeacherCache
from edgekd.errors import TrainingDiverged
from edgekd.stage import Progress

if TYPE_CHECKING:
    from edgekd.data.source import DataSource

Loss = Callable[[Any, "Tensor | None", Tensor, int], Tensor]


@dataclass(frozen=True)
class FitResult:
    """What a training came to; ``best_epoch`` counts from 1, 0 is the state at the start.

    ``history``: an entry an epoch with ``epoch``, ``loss`` (the mean over steps), ``metric`` (None where it was not
    a number) and ``lr`` (of the last step).
    """

    history: list[dict[str, Any]]
    best_epoch: int
    best_metric: float


def fit(
    model: nn.Module,
    source: DataSource,
    *,
    loss: Loss,
    optimizer_config: OptimizerConfig,
    epochs: int,
    batch_size: int,
    seed: int,
    evaluate: Callable[[nn.Module], float],
    scratch: Path,
    progress: Progress,
    augment: Sequence[str] = (),
    teacher: nn.Module | None = None,
    teacher_views: int = 4,
    on_epoch_start: Callable[[int], None] | None = None,
    precision: Precision = "auto",
    channels_last: bool | Literal["auto"] = "auto",
    keep_start: bool = False,
    label: str = "training",
) -> FitResult:
    """Train ``model`` in place and leave its best state in it, on the CPU.

    ``loss(outputs, teacher_outputs, y, epoch)`` is a scalar; ``teacher`` is fixed, its module gives one (N, K) tensor,
    asked once for each of ``teacher_views`` augmented views of the data (None: the loss gets None).
    ``evaluate(model)`` is the metric on the validation split, higher is better; on a tie the later epoch is the best,
    since it was trained with the smaller rate. ``keep_start`` lets the state at the start be the best one too.
    ``on_epoch_start(epoch)``, from 0, is called again for the epochs done when a training is resumed.

    After each epoch the whole state is written to ``scratch``; a training that was killed goes on from there and ends
    with the weights of one that was not (the same machine and thread count taken).

    Raises:
        TrainingDiverged: the loss or the weights became NaN or infinite; names epoch, step and the kept checkpoint.
        StoreFailed: the checkpoint cannot be written.
        BadModel: the teacher answers with NaN.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    plan = {
        "optimizer": asdict(optimizer_config),
        "run": [epochs, batch_size, seed, list(augment), teacher_views, precision, channels_last, keep_start],
        "parameters": [(name, list(parameter.shape)) for name, parameter in model.named_parameters()],
        "samples": len(source.train),  # type: ignore[arg-type]
    }
    identity = hashlib.sha256(json.dumps(plan).encode()).hexdigest()

    fabric = make_fabric(precision)
    layout = memory_format(model, source.input_shape, channels_last)
    feed = make_feed(source, batch_size, seed=seed, names=augment, device=fabric.device, layout=layout)
    cache = None
    if teacher is not None:
        folder, views = scratch / f"teacher-{identity[:12]}", max(1, min(teacher_views, epochs))
        cache = TeacherCache(teacher, feed, views=views, folder=folder, fabric=fabric, progress=progress)
    model.to(device=fabric.device)
    model.to(memory_format=layout)  # type: ignore[call-overload]
    try:
        with own_randomness():
            optimizer = make_optimizer(model, optimizer_config)
            steps = Steps(model, optimizer, fabric=fabric, loss=loss)
            return _Training(
                model, feed, cache, steps, optimizer, optimizer_config, epochs, seed, evaluate, scratch, progress, label
            ).run(identity, on_epoch_start or (lambda epoch: None), keep_start)
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        model.to(device="cpu")
        switch_mode(model, False)
        if teacher is not None:
            teacher.to("cpu")


@dataclass
class _Training:
    model: nn.Module
    feed: Feed
    cache: TeacherCache | None
    steps: Steps
    optimizer: torch.optim.Optimizer
    config: OptimizerConfig
    epochs: int
    seed: int
    evaluate: Callable[[nn.Module], float]
    scratch: Path
    progress: Progress
    label: str

    def run(self, identity: str, on_epoch_start: Callable[[int], None], keep_start: bool) -> FitResult:
        state = self._resume(identity, on_epoch_start) or TrainingState(identity)
        if state.epoch == 0 and state.best is None and (keep_start or self.epochs == 0):
            self._judge(state)
        self.progress.task(self.label, self.epochs * self.feed.steps)
        self.progress.advance(state.epoch * self.feed.steps)
        while state.epoch < self.epochs:
            self._epoch(state, on_epoch_start)
        assert state.best is not None, "every epoch is judged, and the start where there is none"
        assert state.best_epoch is not None
        assert state.best_metric is not None
        self.model.load_state_dict(state.best)
        return FitResult(state.history, state.best_epoch, state.best_metric)

    def _resume(self, identity: str, on_epoch_start: Callable[[int], None]) -> TrainingState | None:
        state = load_state(self.scratch, identity)
        if state is None or state.model is None or state.optimizer is None:
            return None
        for epoch in range(state.epoch):
            on_epoch_start(epoch)
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.progress.log(f"{self.label}: goes on after epoch {state.epoch} of {self.epochs}")
        return state

    def _epoch(self, state: TrainingState, on_epoch_start: Callable[[int], None]) -> None:
        begin, epoch = time.perf_counter(), state.epoch
        view = epoch if self.cache is None else self.cache.view_of(epoch)
        # Before the seeds: whether the answers are computed or read must not change what is drawn.
        answers = None if self.cache is None else self.cache.outputs(view)
        seed_globals(self.seed, "epoch", epoch)
        on_epoch_start(epoch)
        switch_mode(self.model, True)
        rate = 0.0
        self.steps.begin(self._diverged(epoch))
        for step, batch in enumerate(self.feed.batches(epoch, view)):
            done, total = epoch * self.feed.steps + step, self.epochs * self.feed.steps
            rate = set_rate(self.optimizer, self.config, done, total, self.epochs)
            self.steps.step(batch, None if answers is None else answers[batch.rows], epoch)
            self.progress.advance(1)
        mean = self.steps.end()
        state.epoch = epoch + 1
        metric = self._judge(state)
        state.history.append({"epoch": state.epoch, "loss": mean, "metric": metric, "lr": rate})
        state.model, state.optimizer = self.model.state_dict(), self.optimizer.state_dict()
        save_state(state, self.scratch)
        best = " (best)" if state.best_epoch == state.epoch else ""
        seconds = time.perf_counter() - begin
        self.progress.log(
            f"{self.label}: epoch {state.epoch} of {self.epochs}, loss {mean:.4f}, "
            f"validation {metric:.4f}{best}, {seconds:.1f} s"
        )

    def _judge(self, state: TrainingState) -> float:
        metric = float(self.evaluate(self.model))
        if state.best_metric is None or metric >= state.best_metric:
            state.best_metric, state.best_epoch = metric, state.epoch
            state.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        return metric

    def _diverged(self, epoch: int) -> Callable[[int, str], TrainingDiverged]:
        def error(step: int, what: str) -> TrainingDiverged:
            checkpoint = self.scratch / NAME
            kept = f"the state after epoch {epoch} is kept in {checkpoint}" if epoch else "no epoch was finished"
            return TrainingDiverged(
                f"{what} in epoch {epoch + 1}, step {step + 1} of {self.feed.steps}; {kept}",
                where=self.label,
                remedy="lower the learning rate, lengthen the warm-up, or look for broken samples; use precision 32",
            )

        return error
