"""In which numbers the ladder judges: the coarsest that a target runs in integers, whose master all targets share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from edgekd.backends import get_backend
from edgekd.errors import BadTarget
from edgekd.forms import QuantForm
from edgekd.recipe import Recipe
from edgekd.stage import Progress
from edgekd.target import Target, load_target

# The steps of a range from zero on: the master's, and of forms with all codes for what cannot be negative.
MASTER_STEPS, ALL_STEPS = 127, 255


def judged_form(targets: Iterable[Target]) -> QuantForm | None:
    """Those numbers as a form of no backend; None: the master's own.

    These are run by a backend without finer ones, and as good as run by a CPU without VNNI: there layers get weights or
    inputs that are coarser than their form's.
    """
    integer = [target for target in targets if target.precision == "int8"]
    forms = [get_backend(target.backend).candidates(target)[0] for target in integer]
    coarse = any(form.nonnegative == "s8/127" for form in forms)
    if not forms or coarse or not all(target.has_vnni() for target in integer):
        return None
    # Of one key for all targets with these numbers, in whatever types each writes them.
    judged = QuantForm(name="judged", rules="onnxruntime", floors="u8")
    return replace(judged, floors="none") if any(form.floors == "none" for form in forms) else judged


def recipes_targets(recipe: Recipe, progress: Progress) -> list[Target]:
    """Those of the recipe, of which some may not be asked for now: built one by one, all get the same master.

    None where a recipe only has the default, which nobody named; and not those whose file is not here, which is told.
    """
    if recipe.targets == Recipe.model_fields["targets"].default:
        return []
    own = []
    for name in recipe.targets:
        try:
            own.append(load_target(name))
        except BadTarget as error:
            progress.log(f"quantization is judged without the recipe's target {name}: {error.what}")
    return own


def judged_beside(target: Target, own: Sequence[Target], plan: Sequence[Target]) -> tuple[Target, ...]:
    """Of ``plan`` the targets without which ``target`` would have been judged otherwise; ``own`` are the recipe's.

    None of them where the recipe names what decides; else the first that decides: the coarsest numbers need no other.
    """
    wanted, alone = judged_form([*plan, *own]), [target, *own]
    if target.precision != "int8" or judged_form(alone) == wanted:
        return ()
    return (next(one for one in plan if judged_form([*alone, one]) == wanted),)
