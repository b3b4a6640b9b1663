"""What every stage of one build shares: the recipe, the data (loaded at first need), versions, seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.errors import BadModel
from edgekd.forms import QuantForm
from edgekd.recipe import ModelConfig, Recipe
from edgekd.user_code import code_digest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.data.source import DataSource
    from edgekd.tasks import Task

# Prefixes of model names that are not a user's module.
FAMILIES = ("edgekd", "torchvision", "timm")


class Context:
    """One build's recipe and data; cheap to make, loads torch and data only when a stage has work to do.

    ``jobs``: threads that training may use (None: as many as this process may). ``integer``: whether any target wants a
    master; without, only the float student is written. ``judged``: the form in whose numbers quantization is judged
    (None: the master's own).
    """

    def __init__(
        self, recipe: Recipe, jobs: int | None = None, *, integer: bool = True, judged: QuantForm | None = None
    ) -> None:
        self.recipe, self.jobs, self.integer, self.judged = recipe, jobs, integer, judged
        # Whether `edgekd.pipeline.preflight.check_training` has passed.
        self.checked = False

    @cached_property
    def fingerprint(self) -> str:
        """The data's fingerprint, found without torch for built-in sets and folders."""
        from edgekd.data.fingerprint import fingerprint

        if self.recipe.data.factory is not None:
            # A factory may be slow, or give other data the second time: what is fingerprinted is what is used.
            return self.source.digest()
        return fingerprint(self.recipe.data, seed=self.recipe.seed)

    @cached_property
    def source(self) -> DataSource:
        """The data, checked once."""
        import torch

        from edgekd.data.load import load_data
        from edgekd.measure import usable_cpus

        # torch counts the machine's cores, also where a cgroup's quota allows fewer: it would be throttled.
        torch.set_num_threads(self.jobs or usable_cpus())
        return load_data(self.recipe.data, seed=self.recipe.seed)

    @cached_property
    def task(self) -> Task:
        """The recipe's task."""
        from edgekd.tasks import get_task

        return get_task(self.recipe.task)

    def model(self, config: ModelConfig, weights: Path | None) -> nn.Module:
        """A model of this data's classes and input shape, with ``weights`` when given, checked against the data."""
        import torch

        from edgekd.models import build_model, check_classes, load_weights

        torch.manual_seed(self.recipe.seed)
        source = self.source
        module = build_model(
            config.model, classes=len(source.classes), input_shape=source.input_shape, args=config.args
        )
        if weights is not None:
            load_weights(module, weights)
        module.eval()
        outputs = self.logits(module, config.model)
        check_classes(outputs.shape[-1], source.classes, where=config.model)
        return module

    def logits(self, module: nn.Module, where: str) -> Tensor:
        """What a model, in the mode that it is in, answers to a few samples: (samples, K) floats.

        Raises:
            BadModel: it fails, answers with something else or NaN, or (in evaluation mode) a sample's answer depends on
                the others of its batch.
        """
        import torch

        shape = self.source.input_shape
        # Never as many as classes, so that (classes, batch) is not taken for (batch, classes).
        count = 3 if len(self.source.classes) == 2 else 2
        noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
        mode = "in training " if module.training else ""
        try:
            with torch.no_grad():
                samples, outputs = noise, module(noise)
                if not _is_finite(outputs):
                    # What takes logarithms or roots of the data may be right, and noise wrong.
                    samples = torch.stack([self.source.sample("train", index)[0] for index in range(count)])
                    outputs = module(samples)
                answers = [outputs] if module.training else [outputs, module(samples[:1]), module(samples)]
        except Exception as error:
            raise BadModel(
                f"{mode}it does not take the data's samples of shape {shape}: {error}",
                where=where,
                remedy="give a model for this shape (channels first), or change data.preprocess",
            ) from error
        if not _is_rows(outputs, count):
            last = isinstance(outputs, torch.Tensor) and outputs.dim() == 2 and outputs.shape[1] == count
            raise BadModel(
                f"{mode}it returns {_told(outputs)} for {count} samples, not one row of logits a sample",
                where=where,
                remedy="the batch is its last dimension: transpose the output, and keep the batch first"
                if last
                else "return one float tensor of (batch, classes); heads that only train are often switched off by "
                "args, such as aux_logits: false",
            )
        if not _is_finite(outputs):
            raise BadModel(
                f"{mode}its answers to the data's samples are NaN or infinite",
                where=where,
                remedy="look for NaN in its weights, and for logarithms, roots and quotients of what may be zero",
            )
        if not module.training:
            _check_alone(*answers, where=where)
        answer: Tensor = outputs
        return answer

    def model_part(self, config: ModelConfig) -> dict[str, Any]:
        """What a model's name, arguments, weights and (a user's) code contribute to a key."""
        part: dict[str, Any] = {"model": config.model, "args": config.args}
        if config.weights:
            # The content, not the place: a recipe moved elsewhere is still the same recipe.
            part["weights"] = _weights_digest(Path(config.weights))
        if config.model.partition(":")[0] not in FAMILIES:
            part["code"] = code_digest(config.model)
        return part

    def data_part(self) -> dict[str, Any]:
        """What the data contributes to a key; where it lies does not count, its content does."""
        data = self.recipe.data
        part = data.model_dump(mode="json", exclude={"path", "folder"}) | {"fingerprint": self.fingerprint}
        if data.factory is not None:
            part["code"] = code_digest(data.factory)
        return part

    def training(self) -> dict[str, Any]:
        """What every training takes of the recipe."""
        return {"data": self.recipe.data, "task": self.task, "seed": self.recipe.seed}

    def picked(self, split: str, count: int) -> list[int]:
        """Indices of ``count`` samples that stand for the whole split (all, where it has no more), ascending.

        One is drawn from each of ``count`` equal stretches: data sorted by class gives samples of every class, and
        so does data whose classes take turns. The same recipe gives the same indices.
        """
        whole = len(getattr(self.source, split))
        ends = np.arange(min(count, whole) + 1) * whole // max(1, min(count, whole))
        drawn: list[int] = np.random.default_rng(self.recipe.seed).integers(ends[:-1], ends[1:]).tolist()
        return drawn

    def batches(
        self, split: str, *, limit: int | None = None, size: int = 256
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Preprocessed float32 batches and int64 labels as numpy, in order: all, or ``limit`` `picked` ones."""
        if limit is None or limit >= len(getattr(self.source, split)):
            for x, y in self.source.loader(split, size, shuffle=False):
                yield x.numpy(), y.numpy()
            return
        picked, held = self.picked(split, limit), self.source.tensors(split)
        for begin in range(0, len(picked), size):
            part = picked[begin : begin + size]
            if held is not None:
                yield held[0][part].numpy(), held[1][part].numpy()
                continue
            rows = [self.source.sample(split, index) for index in part]
            yield np.stack([x.numpy() for x, _ in rows]), np.array([label for _, label in rows], np.int64)

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """The task's metric, in [0, 1]."""
        return float(self.task.metric(outputs, labels)[self.task.metric_name])


def _is_rows(outputs: Any, count: int) -> bool:
    """Whether a model's output is one row of logits for each of ``count`` samples."""
    import torch

    return (
        isinstance(outputs, torch.Tensor)
        and outputs.dim() == 2
        and len(outputs) == count
        and outputs.is_floating_point()
    )


def _is_finite(outputs: Any) -> bool:
    """Whether a tensor holds numbers only; what is no tensor is told elsewhere."""
    import torch

    return not isinstance(outputs, torch.Tensor) or bool(torch.isfinite(outputs).all())


def _told(outputs: Any) -> str:
    import torch

    if not isinstance(outputs, torch.Tensor):
        return type(outputs).__name__
    return f"{outputs.dtype} of the shape {tuple(outputs.shape)}".removeprefix("torch.")


def _check_alone(outputs: Tensor, alone: Any, again: Tensor, *, where: str) -> None:
    """That a sample is answered the same alone (``alone``) as first of a batch: devices run one at a time."""
    import torch

    if not _is_rows(alone, 1):
        raise BadModel(
            f"for one sample alone it returns {_told(alone)}, not one row",
            where=where,
            remedy="name the dimensions that go: x.flatten(1) or x.squeeze(-1), not x.squeeze()",
        )

    def close(one: Tensor, other: Tensor) -> bool:
        return torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(outputs.abs().max()))

    if not close(outputs, again):
        raise BadModel(
            "asked twice, it gives two answers to the same samples",
            where=where,
            remedy="in evaluation mode nothing may be random: use nn.Dropout, or F.dropout(x, training=self.training)",
        )
    if not close(alone, outputs[:1]):
        raise BadModel(
            "a sample's answer depends on the other samples of its batch",
            where=where,
            remedy="the first dimension is the batch all the way through: batch_first=True, softmax(dim=-1), no mean "
            "over dimension 0, nothing that asks for the batch's size",
        )


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the packages that shape a stage's output."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _weights_digest(path: Path) -> str:
    if not path.is_file():
        return "absent"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
