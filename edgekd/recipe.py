"""What to build: the recipe, typed and frozen, with errors that name file, line, key and the nearest known key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgekd.errors import BadRecipe
from edgekd.yaml_source import Places, load_yaml, nearest, validate

BUILT_IN = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "digits"
DATA_SETS = ("digits", "fashion-mnist")

Positive = Annotated[float, Field(gt=0)]
Epochs = Annotated[int, Field(ge=0, le=10_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=1)]
Precision = Literal["int8", "fp32", "fp16"]


class Part(BaseModel):
    """Base of a recipe's parts: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ResizeConfig(Part):
    """How a raw image is resized: ``size`` is [height, width], or the length of the shorter side."""

    mode: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    size: Pixels | tuple[Pixels, Pixels]


class PreprocessConfig(Part):
    """From a raw sample to the model's input; the same numbers in training, calibration and on the device."""

    layout: Literal["hwc", "chw", "none"] = "hwc"
    resize: ResizeConfig | None = None
    crop: tuple[Pixels, Pixels] | None = None
    scale: Positive = 1 / 255
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[Positive, ...] = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _same_channels(self) -> PreprocessConfig:
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"mean has {len(self.mean)} channels, std has {len(self.std)}")
        return self


class DataConfig(Part):
    """One of ``name`` (a built-in set), ``folder`` (a class per subfolder) or ``factory`` (package.module:callable)."""

    name: str | None = None
    folder: str | None = None
    factory: str | None = None
    args: dict[str, Any] = {}
    path: str | None = Field(None, description="fashion-mnist: a folder of IDX files")
    batch_size: Annotated[int, Field(ge=1)] = 64
    augment: tuple[Literal["flip", "shift", "cutout"], ...] = ()
    preprocess: PreprocessConfig | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in DATA_SETS:
            raise ValueError(f"unknown data set; {nearest(value, list(DATA_SETS))}")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        given = [key for key in ("name", "folder", "factory") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of name, folder and factory ({', '.join(given) or 'none'} given)")
        if self.args and self.factory is None:
            raise ValueError("args are a factory's; there is none here")
        if self.path is not None and self.name != "fashion-mnist":
            raise ValueError("path is where fashion-mnist lies; an image folder is named by folder")
        return self


class ModelConfig(Part):
    """A model by name (torchvision:NAME, timm:NAME, edgekd:NAME, package.module:factory) and its weights."""

    model: str
    args: dict[str, Any] = {}
    weights: str | None = None


class TeacherConfig(ModelConfig):
    """The teacher: used as it is when it has weights, else trained first."""

    model: str = "edgekd:resnet-s"
    epochs: Epochs = 8
    lr: Positive = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    label_smoothing: Fraction = 0.0


class StudentConfig(ModelConfig):
    """The student; its weights, when given, are where distillation starts."""

    model: str = "edgekd:resnet-xs"


class Temperature(Part):
    """A temperature that moves from ``start`` to ``end`` over the epochs."""

    start: Positive
    end: Positive
    schedule: Literal["constant", "linear", "cosine"] = "cosine"


class DistillConfig(Part):
    """Training of the student: ``alpha`` weighs the soft loss against the hard one."""

    loss: Literal["kd", "l2"] = "kd"
    temperature: Positive | Temperature = 4.0
    alpha: Fraction = 0.9
    epochs: Epochs = 20
    lr: Positive = 4e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    train_teacher: bool = False
    teacher_views: Annotated[int, Field(ge=1)] = 4
    precision: Literal["auto", "32", "bf16"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"

    @field_validator("precision", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value


class FinetuneConfig(Part):
    """Training on the labels alone, after distillation."""

    epochs: Epochs = 0
    lr: Positive = 5e-4


class QuantizeConfig(Part):
    """``auto`` climbs from PTQ over what is switched on to QAT for ``epochs``, as far as the budget asks."""

    method: Literal["auto", "ptq", "qat"] = "auto"
    precision: Precision = "int8"
    epochs: Epochs = 3
    lr: Positive = 3e-4
    bias_correction: bool = True
    equalization: bool = True
    adaround: bool = False
    learned_scales: bool = False
    calibration: str = "default"
    prefer: Literal["speed", "size"] = "speed"
    distill_from: Literal["student", "teacher"] = "student"

    @model_validator(mode="after")
    def _fitting(self) -> QuantizeConfig:
        if self.method == "ptq" and self.learned_scales:
            raise ValueError("learned_scales are trained, and method: ptq does not train; use qat or auto")
        if self.method == "qat" and self.adaround:
            raise ValueError("adaround rounds weights that method: qat trains on; use ptq or auto")
        return self


class MeasureConfig(Part):
    """How long is measured: ``pairs`` of fresh processes, ``seconds`` of runs of each side in a pair."""

    pairs: Annotated[int, Field(ge=4, le=1000)] = 8
    seconds: Positive = 1.0


class Budget(Part):
    """What the compiled model must meet; a figure missed ends the build with exit code 4."""

    max_accuracy_drop: Annotated[float, Field(ge=0, le=100)] | None = None
    p90_ms: Positive | None = None
    peak_memory_mb: Positive | None = None
    size_mb: Positive | None = None


class Recipe(Part):
    """A whole build; ``data`` and ``teacher`` alone are a valid recipe."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "model"
    task: Literal["classification"] = "classification"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataConfig
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    compress: tuple[dict[str, Any], ...] = ()
    distill: DistillConfig = DistillConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("onnxruntime-cpu",)
    budget: Budget = Budget()
    measure: MeasureConfig = MeasureConfig()

    @field_validator("compress")
    @classmethod
    def _not_yet(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        if value:
            raise ValueError("compression stages are not in this version; remove the key, or leave its list empty")
        return value

    @classmethod
    def from_flags(
        cls,
        *,
        teacher: str | None,
        weights: str | None,
        data: str | None,
        student: str | None,
        overrides: Sequence[str] = (),
    ) -> Recipe:
        """The recipe of a build without a recipe file.

        Raises:
            BadRecipe: ``data`` is missing, or a value does not validate.
        """
        if data is None:
            raise BadRecipe(
                "no data is named",
                where="--data",
                remedy=f"give an image folder, one of {', '.join(DATA_SETS)}, or pkg.module:factory",
            )
        if weights is not None and teacher is None:
            raise BadRecipe("weights need their model", where="--weights", remedy="give --teacher too")
        if data in DATA_SETS:
            source = {"name": data}
        elif ":" in data and not Path(data).exists():
            source = {"factory": data}
        else:
            source = {"folder": data}
        value: dict[str, Any] = {"data": source}
        if teacher is not None:
            value["name"] = re.sub(r"[^A-Za-z0-9._-]+", "-", teacher.split(":")[-1]).strip("-._") or "model"
            value["teacher"] = {"model": teacher} | ({"weights": weights} if weights else {})
        if student is not None:
            value["student"] = {"model": student}
        return _finish(value, overrides, source="the command line", places={}, base=Path.cwd())


def load_recipe(name: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """A built-in recipe by name (None: `DEFAULT_RECIPE`) or a recipe file, with ``key.path=value`` overrides applied.

    Paths inside a recipe file are relative to it. Raises:
        BadRecipe: an unknown name, a file that does not validate, or an override that does not.
    """
    chosen = DEFAULT_RECIPE if name is None else name
    built_in = chosen in list_recipes()
    path = BUILT_IN / f"{chosen}.yaml" if built_in else Path(chosen)
    if not path.is_file() and path.suffix not in (".yaml", ".yml"):
        raise BadRecipe(f"unknown recipe {chosen!r}", remedy=f"{nearest(chosen, list_recipes())}; or name a .yaml file")
    value, places = load_yaml(path, BadRecipe)
    return _finish(value, overrides, source=str(path), places=places, base=path.parent)


def list_recipes() -> list[str]:
    """Names of the recipes that ship with edgekd."""
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


def recipe_template() -> str:
    """The commented recipe that ``edgekd init`` writes."""
    return (BUILT_IN / "template.txt").read_text(encoding="utf-8")


def _finish(value: dict[str, Any], overrides: Sequence[str], *, source: str, places: Places, base: Path) -> Recipe:
    _resolve_paths(value, base)
    for override in overrides:
        _apply(value, override, places)
    # Those that came with an override are relative to where the command is run.
    _resolve_paths(value, Path.cwd())
    return validate(Recipe, value, source=source, places=places, error=BadRecipe)


def _apply(value: dict[str, Any], override: str, places: Places) -> None:
    name, equals, text = override.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    *parents, last = key
    where = f"--set {override}"
    if not equals or not all(key):
        raise BadRecipe("this is not KEY=VALUE", where=where, remedy="for example: --set distill.epochs=5")
    try:
        parsed = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise BadRecipe(f"the value of {'.'.join(key)} is not YAML", where=where, remedy="mend its syntax") from None
    place = value
    for depth, parent in enumerate(parents, 1):
        # A key that stands there without a value holds no keys yet.
        if place.get(parent) is None:
            place[parent] = {}
            places[key[:depth]] = where
        place = place[parent]
        if not isinstance(place, dict):
            raise BadRecipe(f"{parent!r} holds a value, not keys", where=where, remedy=f"set {parent} itself")
    if parents == ["data"] and last in ("name", "folder", "factory"):
        # The three exclude each other: naming one replaces what the recipe named.
        for other in ("name", "folder", "factory"):
            place.pop(other, None)
    place[last] = parsed
    for old in [at for at in places if at[: len(key)] == key]:
        del places[old]
    places[key] = where


def _resolve_paths(value: dict[str, Any], base: Path) -> None:
    """Make the recipe's paths absolute, so that a build does not depend on where it is started from."""
    for part, key in (("data", "folder"), ("data", "path"), ("teacher", "weights"), ("student", "weights")):
        inner = value.get(part)
        if isinstance(inner, dict) and isinstance(inner.get(key), str):
            inner[key] = _absolute(inner[key], base)
    # Names, unless they are files.
    quantize, targets = value.get("quantize"), value.get("targets")
    if isinstance(quantize, dict) and _is_yaml_file(quantize.get("calibration")):
        quantize["calibration"] = _absolute(quantize["calibration"], base)
    if isinstance(targets, list):
        value["targets"] = [_absolute(one, base) if _is_yaml_file(one) else one for one in targets]


def _absolute(path: str, base: Path) -> str:
    try:
        return str((base / Path(path).expanduser()).resolve())
    except (RuntimeError, ValueError):  # an unknown user's home, a NUL: told where the path is used
        return path


def _is_yaml_file(name: Any) -> bool:
    return isinstance(name, str) and name.endswith((".yaml", ".yml"))
