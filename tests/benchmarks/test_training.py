"""The benchmarks' trained networks: a training is seeded and kept, samples have labels, rows tell top-1 accuracies."""

from dataclasses import replace
from pathlib import Path

import int8_forms
import numpy as np
import pytest
import torch
import training
from networks import bare_network
from rows import measure_backend
from starts import NetworkFiles, Options, _samples, make_files
from torch import nn
from training import Phase, images, trained_network

from edgekd.data.idx import DEBIAN

pytestmark = pytest.mark.skipif(not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
SHORT = (Phase(1, 8, 4, 1e-3),)


def test_images_are_garments_of_the_label_and_the_same_whatever_the_count():
    one, three = images("test", 1, 5), images("test", 3, 5)
    assert three[0].shape == (3, 3, 224, 224)
    assert torch.equal(one[0][0], three[0][0])
    assert one[1][0] == three[1][0]
    assert not torch.equal(three[0][0], three[0][1])
    source = training._source()
    garment = three[0][0, 0, 56:112, 168:]
    alike = np.flatnonzero(source.labels("test") == int(three[1][0]))
    small = garment.reshape(28, 2, 28, 2).mean((1, 3))
    near = [source.sample("test", int(index))[0][0] for index in alike]
    assert min(float((small - other).abs().mean()) for one in near for other in (one, one.flip(1))) < 0.2


def test_weights_are_trained_once_and_kept_by_network_seed_and_phases(tmp_path: Path, monkeypatch):
    network = trained_network("mobilenet_v3_small", 3, tmp_path, SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["mobilenet_v3_small-seed3-8x56px-0.001.safetensors"]
    bare = bare_network("mobilenet_v3_small", 3, 10).eval()
    x, _ = images("test", 2, 0, 56)
    monkeypatch.setattr(training, "_train", None)  # would fail
    with torch.no_grad():
        outputs = network(x)
        assert outputs.shape == (2, 10)
        assert not torch.allclose(outputs, bare(x), atol=1e-3)
        again = trained_network("mobilenet_v3_small", 3, tmp_path, SHORT)
        assert not again.training
        assert torch.allclose(outputs, again(x), atol=1e-5)


def test_held_out_samples_have_labels_where_networks_are_trained():
    options = Options(calibration=2, held_out=3, trained=True)
    calibration, held_out, labels = _samples(options, 56)
    assert torch.equal(calibration, images("train", 2, 1, 56)[0])
    assert torch.equal(held_out, images("test", 3, 2, 56)[0])
    files = NetworkFiles("tiny", Path(), calibration.numpy(), held_out.numpy(), np.eye(10)[labels], "", {}, "", labels)
    assert files.top1(files.reference) == 1
    assert files.top1(np.eye(10)[[labels[0], labels[1], (labels[2] + 1) % 10]]) == pytest.approx(2 / 3)
    assert replace(files, labels=None).top1(files.reference) is None
    assert _samples(replace(options, trained=False), 56)[2] is None


@pytest.mark.slow
def test_rows_tell_top_1_of_float_and_compiled_on_held_out_test_images(tmp_path: Path):
    options = Options(seconds=0, calibration=6, held_out=6, starts=1, trained=True)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    files = make_files("tiny", nn.Sequential(*layers).eval(), tmp_path, options, size=56)
    x, labels = images("test", 6, 2, 56)
    assert np.array_equal(files.held_out, x.numpy())
    row = measure_backend(files, "onnxruntime", options)
    assert row["float_top1"] == np.mean(files.reference.argmax(1) == labels.numpy())
    assert row["ours"][-1]["top1"] == row["float_top1"]
    assert row["top1"] in [one["top1"] for one in row["ours"]]


def test_a_trained_run_says_so_and_networks_that_cannot_be_trained_are_refused(monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setattr(int8_forms, "trained_network", lambda name, seed, folder: (name, folder))
    monkeypatch.setattr(int8_forms, "make_files", lambda name, network, folder, options: network)
    monkeypatch.setattr(int8_forms, "measure_backend", lambda files, backend, options: {
        "model": files[0], "backend": backend, "builds": {}, "folder": files[1]
    })  # fmt: skip
    result = int8_forms.run(["a"], ["onnxruntime"], Options(trained=True), weights=tmp_path)
    assert result["weights"] == result["rows"][0]["weights"] == "trained"
    assert result["rows"][0]["folder"] == tmp_path
    assert "Fashion-MNIST" in result["calibration"]["images"]
    monkeypatch.setattr("sys.argv", ["int8_forms.py", "--trained", "--models", "vit_b_16"])
    with pytest.raises(SystemExit):
        int8_forms.main()
    assert "vit_b_16 cannot be trained here: it is fixed to 224x224" in capsys.readouterr().err
