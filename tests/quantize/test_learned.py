"""LSQ: scales that learn, from the calibrated ones on, and reach the master."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strict_nets import prepared, samples
from torchao.quantization.pt2e import FakeQuantize

from edgekd.measure.proof import onnx_run
from edgekd.quantize import write_master
from edgekd.quantize.learned import LearnedScale, learn_scales
from edgekd.quantize.observers import activation_spec, set_range, weight_spec


def test_it_starts_where_calibration_ended() -> None:
    x = samples("mobilenet-xs").numpy()
    made = prepared("mobilenet-xs").copy()
    before, count = made.run_quantized(x), len(list(made.quantizers()))
    learn_scales(made)
    assert len(list(made.quantizers())) == count
    assert all(isinstance(one, LearnedScale) for _, one in made.quantizers())
    difference = np.abs(made.run_quantized(x) - before)
    assert np.median(difference) < 1e-3 * np.abs(before).max()  # x * (1 / s) is not x / s: few values flip
    assert np.abs(made.run_float(x) - prepared("mobilenet-xs").run_float(x)).max() == 0


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), ratio=st.sampled_from([0.2, 1.0, 5.0]))
def test_the_gradient_of_a_scale(seed: int, ratio: float) -> None:
    """Equation 3 of the paper: round(v/s) - v/s inside, the outermost codes outside; times s, for the logarithm."""
    torch.manual_seed(seed)
    quantizer = activation_spec(1.0).observer_or_fake_quant_ctr()
    x, back = torch.randn(3, 40), torch.randn(3, 40)
    set_range(quantizer, -ratio, ratio)
    made = LearnedScale(quantizer)
    (made(x) * back).sum().backward()
    scale = ratio / 127
    code, rounded = x / scale, (x / scale).round()
    inner = torch.where(rounded < -128, -128.0, torch.where(rounded > 127, 127.0, rounded - code))
    wanted = (inner * back).sum() * scale
    assert made.change.grad.item() == pytest.approx(float(wanted), rel=1e-2, abs=0.02)


def test_a_scale_a_channel() -> None:
    quantizer = weight_spec().observer_or_fake_quant_ctr()
    weight = torch.randn(4, 3, 3, 3) * torch.tensor([1.0, 10, 100, 1000]).reshape(-1, 1, 1, 1)
    quantizer(weight)
    made = LearnedScale(quantizer)
    assert made.change.shape == (4,)
    assert torch.equal(made.calculate_qparams()[0], quantizer.scale)
    with torch.no_grad():
        made.change[2] = -0.5
    assert torch.allclose(made.scale / quantizer.scale, torch.tensor([1, 1, np.exp(-0.5), 1], dtype=torch.float32))


def test_a_range_with_outliers_shrinks() -> None:
    """A step that is ten times too wide: learning finds a narrower one, and less error."""
    torch.manual_seed(0)
    quantizer: FakeQuantize = activation_spec(1.0).observer_or_fake_quant_ctr()
    x = torch.randn(4096)
    set_range(quantizer, -400, 400)
    made = LearnedScale(quantizer)
    optimizer = torch.optim.AdamW([made.change], lr=0.05)
    errors = []
    for _ in range(150):
        loss = (made(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss))
    assert errors[-1] < errors[0] / 20
    assert float(made.scale) < 400 / 127 / 5


def test_scales_move_with_the_weights() -> None:
    """Under the optimizer of the training: a first step of Adam is the rate for all that have a gradient."""
    from edgekd.distill.optimizer import OptimizerConfig, make_optimizer

    x = samples("mobilenet-xs")
    made = prepared("mobilenet-xs").copy()
    learn_scales(made)
    optimizer = make_optimizer(made.module, OptimizerConfig(lr=1e-3))
    made.module(x).log_softmax(1)[:, 0].mean().backward()
    optimizer.step()
    changes = torch.cat([quantizer.change.detach().abs().flatten() for _, quantizer in made.quantizers()])
    assert (changes > 5e-4).float().mean() > 0.75


def test_the_master_gets_the_learned_scales(tmp_path: Path) -> None:
    x = samples("mobilenet-xs")
    made = prepared("mobilenet-xs").copy()
    learn_scales(made)
    torch.manual_seed(0)
    with torch.no_grad():
        for _, quantizer in made.quantizers():
            quantizer.change.copy_(0.1 * torch.randn_like(quantizer.change))
    master = write_master(made, x[:2], tmp_path)
    told = {round(site.scale, 9) for site in master.sites}
    learned = {round(float(one.scale), 9) for _, one in made.quantizers() if not one.is_per_channel}
    assert told == learned
    got = made.run_quantized(x.numpy())
    assert np.sqrt(np.square(onnx_run(master.path)(x.numpy()) - got).mean()) < 0.05 * np.sqrt(np.square(got).mean())


def test_a_checkpoint_carries_them() -> None:
    one, other = prepared("resnet-xs").copy(), prepared("resnet-xs").copy()
    learn_scales(one)
    learn_scales(other)
    with torch.no_grad():
        for _, quantizer in one.quantizers():
            quantizer.change.fill_(0.2)
    other.module.load_state_dict(one.module.state_dict())
    x = samples("resnet-xs").numpy()
    assert np.array_equal(one.run_quantized(x), other.run_quantized(x))
