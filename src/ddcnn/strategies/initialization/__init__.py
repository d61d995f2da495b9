"""Where trainings start: at random, from a file or a run, from one CNN for all subdomains, or from unlabelled images."""

from ddcnn.strategies.initialization.registry import INITIALIZATIONS, check_start, start_of
from ddcnn.strategies.initialization.start import Initialization, Start

__all__ = ["INITIALIZATIONS", "Initialization", "Start", "check_start", "start_of"]
