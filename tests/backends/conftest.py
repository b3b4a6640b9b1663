from types import SimpleNamespace

import pytest


@pytest.fixture
def make_target():
    """A stand-in for edgekd.target.Target: backends ask for few attributes, whatever machine tests run on."""

    def make(
        backend, *, name="here", arch="x86_64", vnni=True, here=True, flavour="default", dla=False, precision="int8"
    ):
        runtime = SimpleNamespace(
            threads=1, workspace_mb=256, dla=dla, inference_precision="f32", flavour=flavour, versions=""
        )
        return SimpleNamespace(
            name=name,
            backend=backend,
            precision=precision,
            arch=arch,
            runtime=runtime,
            has_vnni=lambda: vnni,
            is_here=lambda: here,
        )

    return make
