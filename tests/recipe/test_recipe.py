"""Recipes: what is valid, and how each mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgekd.errors import BadRecipe, ExitCode
from edgekd.recipe import BUILT_IN, Recipe, list_recipes, load_recipe, recipe_template

# Block style, so that each key has a line of its own.
WHOLE = """\
name: mine
task: classification
seed: 3
data:
  name: digits
  batch_size: 32
  augment:
    - flip
    - shift
  preprocess:
    layout: hwc
    resize:
      mode: bicubic
      size:
        - 32
        - 48
    crop:
      - 28
      - 28
    scale: 0.5
    mean:
      - 0.1
    std:
      - 0.2
teacher:
  model: edgekd:resnet-s
  args:
    width: 0.5
  epochs: 2
  lr: 1e-3
student:
  model: edgekd:resnet-xs
  weights: start.safetensors
distill:
  loss: kd
  temperature:
    start: 6
    end: 2
    schedule: linear
  alpha: 0.5
  epochs: 4
finetune:
  epochs: 1
quantize:
  method: qat
  epochs: 2
targets:
  - onnxruntime-cpu
  - jetson
budget:
  max_accuracy_drop: 1.5
  size_mb: 2
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> str:
    (folder / "recipe.yaml").write_text(text)
    return "recipe.yaml"


def refused(folder: Path, text: str, *overrides: str) -> str:
    """The message of a recipe that must not validate."""
    with pytest.raises(BadRecipe) as caught:
        load_recipe(write(folder, text), overrides)
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    return caught.value.render()


def test_a_whole_recipe(here: Path) -> None:
    recipe = load_recipe(write(here, WHOLE))
    assert recipe.name == "mine"
    assert recipe.teacher.lr == 1e-3
    assert recipe.distill.temperature.start == 6  # type: ignore[union-attr]
    assert recipe.data.preprocess is not None
    assert recipe.data.preprocess.resize is not None
    assert recipe.data.preprocess.resize.size == (32, 48)
    assert recipe.targets == ("onnxruntime-cpu", "jetson")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_data_and_teacher_alone_are_a_recipe(here: Path) -> None:
    recipe = load_recipe(write(here, "data: {folder: images}\nteacher: {model: 'torchvision:resnet18'}"))
    assert recipe.data.folder == str(here / "images")
    assert recipe.targets == ("onnxruntime-cpu",)


@pytest.mark.parametrize("name", list_recipes())
def test_built_in_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    # A recipe that names weights names them beside itself.
    assert recipe.teacher.weights is None or Path(recipe.teacher.weights).parent == BUILT_IN


def test_digits_is_the_default_and_both_promised_recipes_are_there() -> None:
    assert load_recipe() == load_recipe("digits")
    assert set(list_recipes()) >= {"digits", "fashion-mnist"}


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe().seed = 4  # type: ignore[misc]


def test_the_template_is_a_valid_recipe(here: Path) -> None:
    assert load_recipe(write(here, recipe_template())).teacher.weights == str(here / "teacher.safetensors")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("distil: {epochs: 3}", ["recipe.yaml:2: unknown key 'distil'", "did you mean 'distill'?"]),
        ("distill: {epoch: 3}", ["recipe.yaml:2: unknown key 'distill.epoch'", "did you mean 'epochs'?"]),
        (
            "distill:\n  temperature:\n    start: 3\n    ende: 2",
            [
                "recipe.yaml:5: unknown key 'distill.temperature.ende'",
                "did you mean 'end'?",
                "temperature.end: this key",
            ],
        ),
        ("zzzzzz: 1", ["recipe.yaml:2: unknown key 'zzzzzz'", "known: budget, compress, data"]),
        ("seed: many", ["recipe.yaml:2: seed: ", "integer", "'many'"]),
        ("seed: -1", ["recipe.yaml:2: seed: ", "greater than or equal to 0", "-1"]),
        ("seed: 99999999999", ["recipe.yaml:2: seed: ", "less than"]),
        ("distill: {alpha: 1.5}", ["recipe.yaml:2: distill.alpha: ", "less than or equal to 1", "1.5"]),
        ("distill: {alpha: .nan}", ["recipe.yaml:2: distill.alpha: ", "finite"]),
        ("distill: {lr: .inf}", ["recipe.yaml:2: distill.lr: ", "finite"]),
        ("distill: {lr: 0}", ["recipe.yaml:2: distill.lr: ", "greater than 0"]),
        ("distill: {loss: kdd}", ["recipe.yaml:2: distill.loss: ", "'kd' or 'l2'", "'kdd'"]),
        ("distill: {temperature: hot}", ["recipe.yaml:2: distill.temperature: ", "number", "mapping", "'hot'"]),
        ("distill:\n  epochs: 3\n  temperature: {start: 0, end: 1}", ["recipe.yaml:4: distill.temperature.start: "]),
        ("distill: 3", ["recipe.yaml:2: distill: should be a mapping of keys to values (it is 3)"]),
        ("distill:", ["recipe.yaml:2: distill: should be a mapping of keys to values (it is empty)"]),
        ("name: 2024", ["recipe.yaml:2: name: should be text (it is 2024)", "put it in quotes"]),
        ("name: ../up", ["recipe.yaml:2: name: ", "'../up'"]),
        ("targets: jetson", ["recipe.yaml:2: targets: should be a list (it is 'jetson')"]),
        ("targets: []", ["recipe.yaml:2: targets: should hold more"]),
        ("targets:\n- jetson\n- 5", ["recipe.yaml:4: targets.1: should be text"]),
        ("task: detection", ["recipe.yaml:2: task: should be 'classification'"]),
        ("compress: [{prune: {structured: 0.3}}]", ["recipe.yaml:2: compress: ", "not in this version"]),
        ("budget: {max_accuracy_drop: 101}", ["recipe.yaml:2: budget.max_accuracy_drop: "]),
        ("quantize: {method: int4}", ["recipe.yaml:2: quantize.method: ", "'auto', 'ptq' or 'qat'"]),
        (
            "quantize: {method: ptq, learned_scales: true}",
            ["recipe.yaml:2: quantize: learned_scales are trained, and method: ptq does not train", "use qat or auto"],
        ),
        (
            "quantize: {method: qat, adaround: true}",
            ["recipe.yaml:2: quantize: adaround rounds weights that method: qat trains on", "use ptq or auto"],
        ),
        ("seed: 1\nseed: 2", ["recipe.yaml:3: the key 'seed' stands twice", "recipe.yaml:2"]),
        ("distill:\n  epochs: 1\n  epochs: 1", ["recipe.yaml:4: the key 'distill.epochs' stands twice"]),
        ("yes: 1", ["recipe.yaml:2: the key 'yes' is not text", "quotes"]),
        ("? [a]\n: 1", ["recipe.yaml:2: the key 'a list or mapping' is not text"]),
        ("seed: [1", ["recipe.yaml:", "is not YAML"]),
        ("\tseed: 1", ["recipe.yaml:2: is not YAML", "mend its syntax"]),
        ("seed: !!python/object:os.system {}", ["recipe.yaml:2: is not YAML", "could not determine a constructor"]),
        ("name: a\0b", ["recipe.yaml:2: is not YAML", "special characters"]),
        ("name: 2024-13-45", ["recipe.yaml: ", "month must be in 1..12"]),
        ("teacher: &t {args: *t}", ["recipe.yaml:2: a value holds itself"]),
        ("x: " + "[" * 3000, ["recipe.yaml: is nested too deeply"]),
    ],
)
def test_mistakes_are_told_with_place_and_remedy(here: Path, line: str, told: list[str]) -> None:
    message = refused(here, f"data: {{name: digits}}\n{line}\n")
    for part in told:
        assert part in message
    assert "Input should" not in message
    assert "\n".join(row for row in message.splitlines() if not row.startswith("  ")).count("recipe.yaml") >= 1


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("{}", ["recipe.yaml:2: data: give exactly one of name, folder and factory (none given)"]),
        ("{name: digits, folder: x}", ["recipe.yaml:2: data: give exactly one", "(name, folder given)"]),
        ("{name: digitz}", ["recipe.yaml:2: data.name: unknown data set; did you mean 'digits'? (it is 'digitz')"]),
        ("digits", ["recipe.yaml:2: data: should be a mapping of keys to values (it is 'digits')"]),
        ("{name: digits, args: {a: 1}}", ["recipe.yaml:2: data: args are a factory's"]),
        ("{folder: x, path: y}", ["recipe.yaml:2: data: path is where fashion-mnist lies"]),
        ("{name: digits, batch_size: 0}", ["recipe.yaml:2: data.batch_size: "]),
        ("{name: digits, augment: [spin]}", ["recipe.yaml:2: data.augment.0: ", "'flip', 'shift' or 'cutout'"]),
        ("{folder: x, preprocess: {std: [0]}}", ["recipe.yaml:2: data.preprocess.std.0: should be greater than 0"]),
        ("{folder: x, preprocess: {mean: [1, 2], std: [1]}}", ["data.preprocess: mean has 2 channels, std has 1"]),
        ("{folder: x, preprocess: {mean: [], std: []}}", ["data.preprocess: mean has 0 channels"]),
        ("{folder: x, preprocess: {crop: [0, 4]}}", ["data.preprocess.crop.0: "]),
        ("{folder: x, preprocess: {resize: {size: big}}}", ["data.preprocess.resize.size: ", "integer", "a list"]),
        ("{folder: x, preprocess: {resize: {size: [4]}}}", ["data.preprocess.resize.size.1: this key is needed"]),
        ("{folder: x, preprocess: {resize: {size: -2}}}", ["data.preprocess.resize.size: should be greater than"]),
        ("{folder: x, preprocess: {layuot: hwc}}", ["'data.preprocess.layuot'", "did you mean 'layout'?"]),
    ],
)
def test_mistakes_in_the_data(here: Path, data: str, told: list[str]) -> None:
    message = refused(here, f"name: x\ndata: {data}\n")
    for part in told:
        assert part in message


def test_one_problem_has_its_fields_and_several_are_all_told(here: Path) -> None:
    with pytest.raises(BadRecipe) as caught:
        load_recipe(write(here, "data: {name: digits}\nsead: 1"))
    assert caught.value.where == "recipe.yaml:2"
    assert caught.value.what == "unknown key 'sead'"
    assert caught.value.remedy == "did you mean 'seed'?"
    message = refused(here, "data: {name: digits}\nsead: 1\ndistill:\n  loss: x\n  alhpa: 1")
    assert all(f"recipe.yaml:{line}: " in message for line in (2, 4, 5))
    assert message.count("did you mean") == 2


def test_data_is_needed(here: Path) -> None:
    assert "recipe.yaml: data: this key is needed" in refused(here, "name: x")


@pytest.mark.parametrize("text", ["", "- a\n- b", "only text", "# nothing but a comment"])
def test_no_mapping(here: Path, text: str) -> None:
    assert "recipe.yaml: holds no mapping of keys to values" in refused(here, text)


def test_files_that_are_none(here: Path) -> None:
    (here / "folder.yaml").mkdir()
    (here / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    for name, told in (
        ("nowhere.yaml", "nowhere.yaml: there is no such file"),
        ("folder.yaml", "folder.yaml: cannot be read as text"),
        ("binary.yaml", "binary.yaml: cannot be read as text"),
        ("digitz", "unknown recipe 'digitz'\n  did you mean 'digits'?; or name a .yaml file"),
        ("../recipes/digits", "unknown recipe"),
        (str(here), "unknown recipe"),
        ("", "unknown recipe"),
    ):
        with pytest.raises(BadRecipe) as caught:
            load_recipe(name)
        assert told in caught.value.render()


def test_a_file_without_an_ending_is_taken_and_a_built_in_name_comes_first(here: Path) -> None:
    (here / "plain").write_text("data: {name: digits}\nname: plain")
    (here / "digits").write_text("data: {name: digits}\nname: not-this")
    assert load_recipe("plain").name == "plain"
    assert load_recipe("digits").name == "digits"
    assert load_recipe("./digits").name == "not-this"


def test_paths_in_a_file_are_relative_to_it_and_those_of_set_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "recipes" / "r.yaml").write_text(
        "data: {folder: images}\nteacher: {weights: ../t.safetensors}\nstudent: {weights: ~/s.safetensors}\n"
        "quantize: {calibration: mine.yaml}\ntargets: [jetson, board.yaml]"
    )
    recipe = load_recipe("../recipes/r.yaml")
    assert recipe.data.folder == str(tmp_path / "recipes/images")
    assert recipe.teacher.weights == str(tmp_path / "t.safetensors")
    assert recipe.student.weights == str(tmp_path / "home/s.safetensors")
    assert recipe.quantize.calibration == str(tmp_path / "recipes/mine.yaml")
    assert recipe.targets == ("jetson", str(tmp_path / "recipes/board.yaml"))
    changed = load_recipe(
        "../recipes/r.yaml",
        [
            "data.folder=images",
            "teacher.weights=w.safetensors",
            "quantize.calibration=own.yaml",
            "targets=[rpi5, b.yaml]",
        ],
    )
    assert changed.data.folder == str(tmp_path / "work/images")
    assert changed.teacher.weights == str(tmp_path / "work/w.safetensors")
    assert changed.student.weights == str(tmp_path / "home/s.safetensors")
    assert changed.quantize.calibration == str(tmp_path / "work/own.yaml")
    assert changed.targets == ("rpi5", str(tmp_path / "work/b.yaml"))
    assert load_recipe("fashion-mnist", ["data.path=idx"]).data.path == str(tmp_path / "work/idx")


def test_overrides(here: Path) -> None:
    name = write(here, WHOLE)
    recipe = load_recipe(
        name,
        [
            "distill.epochs=5",
            "distill.temperature=3",
            "teacher.lr=1e-4",
            "targets=[rtx]",
            "data.augment=[]",
            "teacher.args.width=0.25",
            "measure.pairs = 4",
            "student.weights=",
            "distill.epochs=6",
        ],
    )
    assert recipe.distill.epochs == 6
    assert recipe.distill.temperature == 3
    assert recipe.teacher.lr == 1e-4
    assert recipe.targets == ("rtx",)
    assert recipe.data.augment == ()
    assert recipe.teacher.args == {"width": 0.25}
    assert recipe.measure.pairs == 4
    assert recipe.student.weights is None
    # Naming another source replaces the one that the recipe names.
    other = load_recipe(name, ["data.folder=x"])
    assert (other.data.name, other.data.folder) == (None, str(here / "x"))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("distill.epochs", ["--set distill.epochs: this is not KEY=VALUE", "for example: --set distill.epochs=5"]),
        ("=5", ["--set =5: this is not KEY=VALUE"]),
        ("distill..epochs=5", ["--set distill..epochs=5: this is not KEY=VALUE"]),
        ("distill.epochs=[", ["--set distill.epochs=[: the value of distill.epochs is not YAML"]),
        ("name=2024-13-45", ["--set name=2024-13-45: the value of name is not YAML"]),
        ("name.first=5", ["--set name.first=5: 'name' holds a value, not keys", "set name itself"]),
        ("distill.epochs=x", ["--set distill.epochs=x: distill.epochs: ", "integer", "'x'"]),
        ("distil.epochs=5", ["--set distil.epochs=5: unknown key 'distil'", "did you mean 'distill'?"]),
        ("distill.temperature.start=-1", ["--set distill.temperature.start=-1: distill.temperature.start: "]),
        ("distill={epochs: 3, alpha: 7}", ["--set distill={epochs: 3, alpha: 7}: distill.alpha: "]),
    ],
)
def test_overrides_that_are_wrong(here: Path, override: str, told: list[str]) -> None:
    message = refused(here, WHOLE, override)
    for part in told:
        assert part in message
    assert "recipe.yaml" not in message


def test_flags_without_a_recipe(here: Path) -> None:
    def make(**flags: Any) -> Recipe:
        return Recipe.from_flags(**({"teacher": None, "weights": None, "data": None, "student": None} | flags))

    recipe = make(teacher="torchvision:resnet18", weights="w.safetensors", data="./images", student="edgekd:dscnn")
    assert recipe.name == "resnet18"
    assert recipe.teacher.model == "torchvision:resnet18"
    assert recipe.teacher.weights == str(here / "w.safetensors")
    assert recipe.data.folder == str(here / "images")
    assert recipe.student.model == "edgekd:dscnn"
    assert make(data="digits").data.name == "digits"
    assert make(data="mine.data:make").data.factory == "mine.data:make"
    assert make(data="digits", overrides=["distill.epochs=1"]).distill.epochs == 1
    (here / "odd:name").mkdir()
    assert make(data="odd:name").data.folder == str(here / "odd:name")
    # Its name becomes a folder's.
    assert make(data="digits", teacher="timm:hf_hub:org/net.a1_in1k").name == "org-net.a1_in1k"
    for flags, told in (
        ({"teacher": "edgekd:resnet-s"}, "--data: no data is named"),
        ({"weights": "w", "data": "digits"}, "--weights: weights need their model"),
        ({"data": "digits", "overrides": ["seed=x"]}, "--set seed=x: seed: "),
        ({"data": "digits", "overrides": ["sed=1"]}, "unknown key 'sed'"),
    ):
        with pytest.raises(BadRecipe) as caught:
            make(**flags)
        assert told in caught.value.render()


def keys_of(value: Any, at: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [(*at, key) for key in value] + [more for key in value for more in keys_of(value[key], (*at, key))]
    if isinstance(value, list):
        return [more for index, one in enumerate(value) for more in keys_of(one, (*at, index))]
    return []


# A model's args are its own: any key is right there.
KEYS = [key for key in keys_of(yaml.safe_load(WHOLE)) if "args" not in key[:-1]]


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Line of each key of block-style YAML, by its indentation."""
    found, stack = {}, []
    for number, line in enumerate(text.splitlines(), 1):
        body = line.lstrip()
        if body.startswith("- ") or ":" not in body:
            continue
        depth = (len(line) - len(body)) // 2
        stack[depth:] = [body.split(":")[0]]
        found[tuple(stack)] = number
    return found


def told_of(name: str, *overrides: str) -> str | None:
    """The message of a bad recipe, None of a good one; any other exception is a bug."""
    try:
        load_recipe(name, overrides)
    except BadRecipe as error:
        return error.render()
    return None


@settings(max_examples=150, deadline=None)
@given(
    key=st.sampled_from(KEYS),
    new=st.one_of(
        st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.text("abc.-%{}'\"\\é\n:#", min_size=1), st.just("<<")
    ),
)
def test_a_renamed_key_is_named_with_its_line(tmp_path_factory: pytest.TempPathFactory, key: tuple, new: str) -> None:
    assume((*key[:-1], new) not in {*KEYS, ("data", "folder"), ("data", "factory")})
    line = lines_of(WHOLE)[key]
    rows = WHOLE.splitlines()
    old = rows[line - 1]
    indent = old[: len(old) - len(old.lstrip())]
    written = yaml.safe_dump(new, default_style='"', width=10_000, allow_unicode=False).strip()
    rows[line - 1] = f"{indent}{written}:{old.lstrip().partition(':')[2]}"
    path = tmp_path_factory.mktemp("renamed") / "r.yaml"
    path.write_text("\n".join(rows))
    message = told_of(str(path))
    if message is None:
        # Renamed into another key that is right there.
        assert new in {*Recipe.model_fields, *WHOLE_FIELDS}
    else:
        assert f"{path}:{line}: " in message
        assert repr(".".join((*key[:-1], new))) in message


WHOLE_FIELDS = {
    *("path", "args", "factory", "folder", "weights", "weight_decay", "warmup_epochs", "label_smoothing", "measure"),
    *("train_teacher", "teacher_views", "precision", "channels_last", "calibration", "prefer", "distill_from"),
    *("p90_ms", "peak_memory_mb", "compress", "lr"),
}


@settings(max_examples=150, deadline=None)
@given(
    key=st.sampled_from(KEYS),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner),
        max_leaves=4,
    ),
)
def test_any_value_anywhere_validates_or_is_told(
    tmp_path_factory: pytest.TempPathFactory, key: tuple, value: Any
) -> None:
    whole = yaml.safe_load(WHOLE)
    place = whole
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    path = tmp_path_factory.mktemp("any") / "r.yaml"
    path.write_text(yaml.safe_dump(whole))
    assert str(path) in (told_of(str(path)) or str(path))


@settings(max_examples=200, deadline=None)
@given(text=st.text("abc:-{}[]&*!|>'\"%@#,? \t\n01~", max_size=40) | st.text(max_size=20))
def test_any_text_is_a_recipe_or_is_told(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("text") / "r.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    assert str(path) in (told_of(str(path), "data.name=digits") or str(path))


@settings(max_examples=200, deadline=None)
@given(override=st.text("abc.=:-{}[]&*!'\"%@# 01~\n", max_size=20) | st.text(max_size=15))
def test_any_override_is_taken_or_told(override: str) -> None:
    assert "--set" in (told_of("digits", override) or "--set")
