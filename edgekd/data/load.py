"""The data that a recipe names."""

from __future__ import annotations

from edgekd.data.source import DataSource
from edgekd.recipe import DataConfig


def load_data(config: DataConfig, *, seed: int) -> DataSource:
    """The data set of ``config``, its splits drawn with ``seed``; samples are checked when they are read.

    Raises:
        BadData: whatever is wrong with it.
        Missing: it is not on this machine.
    """
    spec = config.preprocess.model_dump(mode="json") if config.preprocess else None
    if config.folder is not None:
        from edgekd.data.folder import load_folder

        return load_folder(config.folder, spec, seed)
    if config.factory is not None:
        from edgekd.data.factory import load_factory

        return load_factory(config.factory, config.args, spec, seed)
    if config.name == "digits":
        from edgekd.data.digits import load_digits

        source = load_digits(seed)
    else:
        from edgekd.data.fashion_mnist import load_fashion_mnist

        source = load_fashion_mnist(config.path, seed)
    if spec is not None:
        source.preprocess = spec
    return source
