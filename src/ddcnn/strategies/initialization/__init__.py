"""Where trainings begin: at random, with given weights, with one CNN for all subdomains, without labels, or trained."""

from ddcnn.strategies.initialization.registry import INITIALIZATIONS, check_start, start_of, start_works
from ddcnn.strategies.initialization.start import Initialization, Start, Trained

__all__ = ["INITIALIZATIONS", "Initialization", "Start", "Trained", "check_start", "start_of", "start_works"]
