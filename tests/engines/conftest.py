from tests.experiments.conftest import source

__all__ = ["source"]
